"""Alembic's folder: how the schema came to be what it is, step by step, on SQLite and on PostgreSQL."""
