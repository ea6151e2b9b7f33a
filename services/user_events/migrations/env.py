"""Run by Alembic: migrates over the connection, and in the transaction, of whoever asks (`schema_version`)."""

from alembic import context

from services.user_events.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
