"""`python -m services.user_events.retention`: deletes what is older than it may become.

Events after `retention_days` (0: never), counters after the longest time that they can be asked about. In small
transactions, so that nobody who writes waits long. The service does it daily by itself.
"""

import asyncio
import time

from sqlalchemy import ColumnElement, and_, delete, exists, select, true, tuple_, update

from services.user_events import schema_version
from services.user_events.database import Database
from services.user_events.events import MICROS_PER_DAY, MICROS_PER_HOUR
from services.user_events.jobs import main, print_line, settings_of
from services.user_events.schema import counters, events, users
from services.user_events.settings import RetentionSettings
from shared.telemetry import metrics

COUNTERS_DAYS = 401
"""No window reaches further back."""

_LOCK = 0x41_69_73_6C_65_04
_BATCH_EVENTS = 1_000
_BATCH_COUNTERS = 10_000
"""Looked at, and deleted where they are old: some ten milliseconds."""
_PAUSE_S = 0.02
"""Between transactions: for those who wait to write."""


class RetentionJobSettings(RetentionSettings):
    """Flags and environment variables (`AISLE_USER_EVENTS_…`) of the job."""

    model_config = settings_of("retention")


class Retention:
    """Deletes from `database` what is older than `days`; 0: nothing but counters that nobody can ask about."""

    def __init__(self, database: Database, days: int) -> None:
        self._database = database
        self._days = days

    async def run(self, now: int) -> int | None:
        """Events deleted; `None` where another process is at it. `now` in microseconds since 1970."""
        async with self._database.exclusively(_LOCK) as mine:
            if not mine:
                return None
            deleted = 0
            while self._days:
                batch, is_last = await self._delete_events(now - self._days * MICROS_PER_DAY)
                deleted += batch
                metrics.EVENTS_DELETED.labels("retention").inc(batch)
                if is_last:
                    break
                await asyncio.sleep(_PAUSE_S)
            if deleted:
                await self._database.empty_log()
            # After the events: those are what people were promised.
            await self._delete_counters(now // MICROS_PER_HOUR - COUNTERS_DAYS * 24)
            return deleted

    async def _delete_events(self, before: int) -> tuple[int, bool]:
        """How many events a transaction deleted, and whether they were the last."""
        old = select(events.c.seq, events.c.user_key).where(events.c.occurred_at < before)
        async with self._database.writing() as connection:
            found = (await connection.execute(old.order_by(events.c.occurred_at).limit(_BATCH_EVENTS))).all()
            known = users.c.user_key.in_(sorted({row.user_key for row in found if row.user_key is not None}))
            # Users before their events, as `Histories.forget` has it: two that want the same rows then wait, and do not
            # lock each other out. And held before it is looked whether anything is left: an event that is being written
            # counts.
            await connection.execute(select(users.c.user_key).where(known).order_by(users.c.user_key).with_for_update())
            gone = await connection.execute(delete(events).where(events.c.seq.in_([row.seq for row in found])))
            left = exists(select(events.c.seq).where(events.c.user_key == users.c.user_key))
            await connection.execute(delete(users).where(known, ~left))
            await connection.execute(update(users).where(known).values(version=users.c.version + 1))
        # By what was found: of those, some may have been forgotten meanwhile.
        return gone.rowcount, len(found) < _BATCH_EVENTS

    async def _delete_counters(self, before_hour: int) -> None:
        # By the primary key from end to end: no index is by hour, and one statement for all would take minutes.
        key = tuple_(*counters.primary_key)
        rest: ColumnElement[bool] = true()
        while True:
            ends = select(*key.clauses).where(rest).order_by(*key.clauses).offset(_BATCH_COUNTERS - 1).limit(1)
            async with self._database.reading() as connection:
                last = (await connection.execute(ends)).one_or_none()
            # By item besides: PostgreSQL knows how much of a table lies between two items, and not between two rows.
            batch = rest if last is None else and_(rest, key <= last, counters.c.item_id <= last.item_id)
            async with self._database.writing() as connection:
                await connection.execute(delete(counters).where(batch, counters.c.hour < before_hour))
            if last is None:
                return
            rest = and_(key > last, counters.c.item_id >= last.item_id)
            await asyncio.sleep(_PAUSE_S)


async def run(settings: RetentionJobSettings) -> str:
    """One run over the database that `settings` names."""
    database = Database(settings)
    try:
        await schema_version.check(database)
        deleted = await Retention(database, settings.retention_days).run(time.time_ns() // 1_000)
    finally:
        await database.close()
    return "another process is deleting" if deleted is None else f"{deleted:,} events deleted"


if __name__ == "__main__":
    main(RetentionJobSettings, lambda settings: print_line(asyncio.run(run(settings))))
