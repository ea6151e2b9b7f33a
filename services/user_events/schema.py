"""The tables, and an event as a row. Migrations make them; what they make is what stands here, and a test compares."""

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

from services.user_events.events import Event, EventType
from shared.attribution import Attribution
from shared.items import Money

metadata = MetaData()

Sequence64 = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows by itself in a column of exactly this type."""

events = Table(
    "events",
    metadata,
    # The order of arrival. Never given twice, so that a cursor into it stays good when rows are deleted.
    Column("seq", Sequence64, primary_key=True, autoincrement=True),
    Column("digest", LargeBinary, nullable=False),
    Column("id", String, nullable=False),
    Column("type", SmallInteger, nullable=False),
    Column("user_key", LargeBinary),
    Column("session_key", LargeBinary),
    Column("occurred_at", BigInteger, nullable=False),
    Column("arrived_at", BigInteger, nullable=False),
    Column("item_id", String),
    Column("item_ids", Text),
    Column("first_position", Integer, nullable=False),
    Column("query", Text),
    Column("quantity", Integer, nullable=False),
    Column("price_micros", BigInteger),
    Column("price_currency", String),
    Column("sampled_one_in", Integer, nullable=False),
    Column("properties", Text),
    Column("attribution", Text),
    Index("events_digest", "digest", unique=True),
    # A user's latest events, those of some types without looking at the others.
    Index(
        "events_user",
        "user_key",
        "occurred_at",
        "seq",
        "type",
        sqlite_where=text("user_key IS NOT NULL"),
        postgresql_where=text("user_key IS NOT NULL"),
    ),
    # What retention deletes.
    Index("events_occurred_at", "occurred_at"),
    sqlite_autoincrement=True,
)

users = Table(
    "users",
    metadata,
    Column("user_key", LargeBinary, primary_key=True),
    Column("version", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

counters = Table(
    "counters",
    metadata,
    Column("item_id", String, primary_key=True),
    # Since 1970.
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("type", SmallInteger, primary_key=True, autoincrement=False),
    # No index by hour: a sum over all items reads the table from end to end faster than it would follow one.
    Column("count", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

receipts = Table(
    "forget_receipts",
    metadata,
    Column("id", String, primary_key=True),
    Column("forgotten_at", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
)

relation_generations = Table(
    "relation_generations",
    metadata,
    # When it was learned, so that the newest is the largest.
    Column("learned_at", BigInteger, primary_key=True, autoincrement=False),
    Column("items", Integer, nullable=False),
    Column("interactions", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
)

relations = Table(
    "relations",
    metadata,
    Column("learned_at", BigInteger, primary_key=True, autoincrement=False),
    Column("item_id", String, primary_key=True),
    # JSON: [[item id, weight], …], the strongest first. Read as a whole, always.
    Column("neighbours", Text, nullable=False),
    sqlite_with_rowid=False,
)


def row_of(event: Event) -> dict[str, Any]:
    """The row of `event`; its `seq` is the database's to give."""
    return {
        "digest": event.digest,
        "id": event.id,
        "type": int(event.type),
        "user_key": event.user_key,
        "session_key": event.session_key,
        "occurred_at": event.occurred_at,
        "arrived_at": event.arrived_at,
        "item_id": event.item_id,
        "item_ids": _json(list(event.item_ids)) if event.item_ids else None,
        "first_position": event.first_position,
        "query": event.query,
        "quantity": event.quantity,
        "price_micros": event.price.micros if event.price is not None else None,
        "price_currency": event.price.currency_code if event.price is not None else None,
        "sampled_one_in": event.sampled_one_in,
        "properties": _json(dict(event.properties)) if event.properties else None,
        "attribution": _json(_told(event.attribution)) if event.attribution is not None else None,
    }


def event_of(row: RowMapping) -> Event:
    """The event of a row of `events`."""
    return Event(
        id=row["id"],
        type=EventType(row["type"]),
        user_key=row["user_key"],
        session_key=row["session_key"],
        occurred_at=row["occurred_at"],
        arrived_at=row["arrived_at"],
        item_id=row["item_id"],
        item_ids=json.loads(row["item_ids"]) if row["item_ids"] else (),
        first_position=row["first_position"],
        query=row["query"],
        quantity=row["quantity"],
        price=Money(row["price_currency"], row["price_micros"]) if row["price_micros"] is not None else None,
        sampled_one_in=row["sampled_one_in"],
        properties=json.loads(row["properties"]) if row["properties"] else {},
        attribution=Attribution(**json.loads(row["attribution"])) if row["attribution"] else None,
    )


def _told(attribution: Attribution) -> dict[str, Any]:
    return {name: value for name, value in asdict(attribution).items() if value not in ("", None)}


def _json(value: object) -> str:
    # Escapes all but ASCII, a NUL included, which PostgreSQL would not store.
    return json.dumps(value, separators=(",", ":"))
