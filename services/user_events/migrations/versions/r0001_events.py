"""Events, users, counters, receipts, relations.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the first tables."""
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("type", sa.SmallInteger, nullable=False),
        sa.Column("user_key", sa.LargeBinary),
        sa.Column("session_key", sa.LargeBinary),
        sa.Column("occurred_at", sa.BigInteger, nullable=False),
        sa.Column("arrived_at", sa.BigInteger, nullable=False),
        sa.Column("item_id", sa.String),
        sa.Column("item_ids", sa.Text),
        sa.Column("first_position", sa.Integer, nullable=False),
        sa.Column("query", sa.Text),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("price_micros", sa.BigInteger),
        sa.Column("price_currency", sa.String),
        sa.Column("sampled_one_in", sa.Integer, nullable=False),
        sa.Column("properties", sa.Text),
        sa.Column("attribution", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("events_digest", "events", ["digest"], unique=True)
    known = sa.text("user_key IS NOT NULL")
    op.create_index(
        "events_user",
        "events",
        ["user_key", "occurred_at", "seq", "type"],
        sqlite_where=known,
        postgresql_where=known,
    )
    op.create_index("events_occurred_at", "events", ["occurred_at"])
    op.create_table(
        "users",
        sa.Column("user_key", sa.LargeBinary, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "counters",
        sa.Column("item_id", sa.String, primary_key=True),
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("type", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "forget_receipts",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("forgotten_at", sa.BigInteger, nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "relation_generations",
        sa.Column("learned_at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("items", sa.Integer, nullable=False),
        sa.Column("interactions", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
    )
    op.create_table(
        "relations",
        sa.Column("learned_at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("item_id", sa.String, primary_key=True),
        sa.Column("neighbours", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Removes everything."""
    for table in ("relations", "relation_generations", "forget_receipts", "counters", "users", "events"):
        op.drop_table(table)
