"""Writing: a group of events, what they change about their users, and what they count, in one transaction."""

from collections import Counter
from collections.abc import Iterable, Sequence

from sqlalchemy import Boolean, TextClause, bindparam, case, func, not_, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.user_events.database import Database
from services.user_events.events import Event, EventType
from services.user_events.schema import counters, events, row_of, users

BARRIER = 0x41_69_73_6C_65_01
"""Of PostgreSQL's advisory locks: held in common by transactions that add events; see `stream.Log.end`."""


class Journal:
    """Adds events to the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = _add_to_postgres if database.is_server else _add_to_sqlite
        upsert = postgres_insert if database.is_server else sqlite_insert
        version = upsert(users)
        self._touch = version.on_conflict_do_update(
            index_elements=[users.c.user_key],
            # Never one that the user had before, even if it was forgotten in between: versions begin at the time.
            set_={
                "version": case(
                    # One statement for both: by two, rows would be locked in two orders.
                    (not_(bindparam("raised", type_=Boolean)), users.c.version),
                    (users.c.version >= version.excluded.version, users.c.version + 1),
                    else_=version.excluded.version,
                )
            },
        )
        count = upsert(counters)
        self._count = count.on_conflict_do_update(
            index_elements=[counters.c.item_id, counters.c.hour, counters.c.type],
            set_={"count": counters.c.count + count.excluded.count},
        )

    async def append(self, group: Sequence[Event]) -> Sequence[bool]:
        """Stores the events that are new, in one transaction; says of each whether it was. Of equal ids the first is.

        Raises `RowsRefusedError` when a row breaks a rule of the database, and what `Database.writing` does.
        """
        first: dict[bytes, int] = {}
        for at, event in enumerate(group):
            first.setdefault(event.digest, at)
        # In one order everywhere, here and below: two transactions that want the same rows then wait, and do not lock
        # each other out.
        candidates = [group[first[digest]] for digest in sorted(first)]
        async with self._database.writing() as connection:
            stored = await self.add(connection, candidates)
        return [event.digest in stored and first[event.digest] == at for at, event in enumerate(group)]

    async def add(self, connection: AsyncConnection, candidates: Sequence[Event]) -> set[bytes]:
        """Stores the new ones of `candidates`, whose ids differ, in a transaction; says which by digest."""
        stored = await self._insert(connection, candidates)
        fresh = [event for event in candidates if event.digest in stored]
        await self._touch_users(connection, fresh)
        await self._count_items(connection, fresh)
        return stored

    async def _touch_users(self, connection: AsyncConnection, fresh: Iterable[Event]) -> None:
        latest: dict[bytes, int] = {}
        raised: set[bytes] = set()
        for event in fresh:
            if event.user_key is not None:
                latest[event.user_key] = max(event.arrived_at, latest.get(event.user_key, 0))
                # Every page shown is one: whoever keeps a history would read it anew for each.
                if event.type is not EventType.IMPRESSION:
                    raised.add(event.user_key)
        if latest:
            # The others' rows too: they stand for the users, where somebody is forgotten or retention runs.
            rows = [{"user_key": key, "version": latest[key], "raised": key in raised} for key in sorted(latest)]
            await connection.execute(self._touch, rows)

    async def _count_items(self, connection: AsyncConnection, fresh: Iterable[Event]) -> None:
        counted: Counter[tuple[str, int, int]] = Counter()
        for event in fresh:
            for item_id in event.shown_items():
                counted[item_id, event.hour, int(event.type)] += event.sampled_one_in
        if counted:
            rows = [
                {"item_id": item_id, "hour": hour, "type": kind, "count": counted[item_id, hour, kind]}
                for item_id, hour, kind in sorted(counted)
            ]
            await connection.execute(self._count, rows)


async def _add_to_sqlite(connection: AsyncConnection, group: Sequence[Event]) -> set[bytes]:
    # The write lock is held, so the rows that follow are this transaction's. To ask for them afterwards lets the rows
    # be inserted by one prepared statement.
    before = (await connection.execute(select(func.coalesce(func.max(events.c.seq), 0)))).scalar_one()
    statement = sqlite_insert(events).on_conflict_do_nothing(index_elements=[events.c.digest])
    await connection.execute(statement, [row_of(event) for event in group])
    return set((await connection.execute(select(events.c.digest).where(events.c.seq > before))).scalars())


_COLUMNS = [column for column in events.columns if column.name != "seq"]


def _unnested() -> TextClause:
    # One array a column, so that one short statement, prepared once, takes any number of rows.
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    arrays = ", ".join(f"CAST(:{column.name} AS {column.type.compile(dialect)}[])" for column in _COLUMNS)
    names = ", ".join(column.name for column in _COLUMNS)
    return text(
        f"INSERT INTO events ({names}) SELECT * FROM unnest({arrays}) "  # noqa: S608
        "ON CONFLICT (digest) DO NOTHING RETURNING digest"
    )


_ADD_ARRAYS = _unnested()


async def _add_to_postgres(connection: AsyncConnection, group: Sequence[Event]) -> set[bytes]:
    await connection.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": BARRIER})
    rows = [row_of(event) for event in group]
    arrays = {column.name: [row[column.name] for row in rows] for column in _COLUMNS}
    return set((await connection.execute(_ADD_ARRAYS, arrays)).scalars())
