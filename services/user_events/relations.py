"""`python -m services.user_events.relations`: learns which items go with which from all that shoppers did.

What it learns is a generation: written beside the one that answers, in small transactions that hold nobody up, and in
force at once when it is whole. Run again at any time. The service runs it by itself (`relations_every_s`).
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import islice

import numpy as np
from pydantic import Field
from sqlalchemy import RowMapping, delete, func, insert, select, tuple_

from services.user_events import schema_version, stream
from services.user_events.database import Database
from services.user_events.events import MICROS_PER_DAY, MICROS_PER_S, EventType
from services.user_events.jobs import main, print_line, settings_of
from services.user_events.learning import Collector, Neighbours, learn
from services.user_events.popularity import WEIGHTS
from services.user_events.schema import events, relation_generations, relations
from services.user_events.settings import RelationsSettings

_LOCK = 0x41_69_73_6C_65_03
_PAGE_EVENTS = 10_000
_BATCH_ITEMS = 200
"""Half a megabyte: some milliseconds of the one writer that SQLite has."""
_NICE = 10
"""Shoppers wait for the service, and nobody for this."""

_LEARNED_FROM = {kind: weight for kind, weight in WEIGHTS.items() if weight > 0}


class RelationsJobSettings(RelationsSettings):
    """Flags and environment variables (`AISLE_USER_EVENTS_…`) of the job."""

    model_config = settings_of("relations")

    unless_younger_s: float = Field(
        0.0,
        ge=0,
        description="Do nothing if the relations in force were learned fewer seconds ago: so that of many that start "
        "the job, one does the work.",
    )


class RelationsJob:
    """One run over the log in `database`."""

    def __init__(self, database: Database, settings: RelationsJobSettings) -> None:
        self._database = database
        self._settings = settings

    async def run(self, now: int) -> str:
        """What was done, for people. `now` in microseconds since 1970."""
        await schema_version.check(self._database)
        async with self._database.exclusively(_LOCK) as mine:
            if not mine:
                return "another process is learning the relations"
            known = await self._learned_at()
            if now - known < self._settings.unless_younger_s * MICROS_PER_S:
                return f"the relations are {(now - known) // MICROS_PER_S} s old: left as they are"
            return await self._learn(max(now, known + 1))

    async def _learn(self, learned_at: int) -> str:
        started = time.monotonic()
        collector = Collector(self._settings.relations_half_life_days)
        async for rows in self._pages():
            collector.add(
                (
                    row["user"],
                    row["item_id"],
                    _LEARNED_FROM[EventType(row["type"])],
                    row["occurred_at"] / MICROS_PER_DAY,
                )
                for row in rows
            )
        interactions = collector.interactions()
        if not len(interactions.items):
            return "nobody has done anything yet: there is nothing to learn from"
        item_ids = collector.item_ids
        learned = learn(
            interactions, len(item_ids), self._settings.relations_head_items, self._settings.relations_regularisation
        )
        items = await self._write(learned, item_ids, learned_at)
        seconds = time.monotonic() - started
        async with self._database.writing() as connection:
            await connection.execute(
                insert(relation_generations).values(
                    learned_at=learned_at, items=items, interactions=len(interactions.items), seconds=seconds
                )
            )
        await self._clean(learned_at)
        users = len(np.unique(interactions.users))
        return (
            f"relations of {items:,} items learned from {len(interactions.items):,} interactions of {users:,} users "
            f"in {seconds:.1f} s"
        )

    async def _learned_at(self) -> int:
        async with self._database.reading() as connection:
            newest = select(func.coalesce(func.max(relation_generations.c.learned_at), 0))
            return int((await connection.execute(newest)).scalar_one())

    async def _pages(self) -> AsyncIterator[Sequence[RowMapping]]:
        """Who did what when, in the order of arrival. A visit stands for whoever nobody knows."""
        user = func.coalesce(events.c.user_key, events.c.session_key).label("user")
        async with self._database.reading() as connection:
            newest = (await connection.execute(select(func.max(events.c.occurred_at)))).scalar() or 0
            # What is being written at this moment is learned from the next time.
            end = (await connection.execute(select(func.max(events.c.seq)))).scalar() or 0
        since = newest - self._settings.relations_window_days * MICROS_PER_DAY
        query = select(events.c.seq, user, events.c.item_id, events.c.type, events.c.occurred_at).where(
            events.c.type.in_(sorted(_LEARNED_FROM)), events.c.occurred_at >= since
        )
        async for rows, _ in stream.pages(self._database, query, 0, end, _PAGE_EVENTS):
            yield rows

    async def _write(self, learned: Iterable[Neighbours], item_ids: Sequence[str], learned_at: int) -> int:
        items = 0
        pending = iter(learned)
        while batch := list(islice(pending, _BATCH_ITEMS)):
            rows = [
                {
                    "learned_at": learned_at,
                    "item_id": item_ids[one.item],
                    "neighbours": json.dumps([[item_ids[other], weight] for other, weight in one.others]),
                }
                for one in batch
                if one.others
            ]
            if rows:
                async with self._database.writing() as connection:
                    await connection.execute(insert(relations), rows)
            items += len(rows)
        return items

    async def _clean(self, learned_at: int) -> None:
        """Removes what came before, runs that were broken off included."""
        old = select(relations.c.learned_at, relations.c.item_id).where(relations.c.learned_at < learned_at)
        key = tuple_(relations.c.learned_at, relations.c.item_id)
        while True:
            async with self._database.writing() as connection:
                gone = await connection.execute(delete(relations).where(key.in_(old.limit(_BATCH_ITEMS))))
            if gone.rowcount < _BATCH_ITEMS:
                break
        async with self._database.writing() as connection:
            await connection.execute(delete(relation_generations).where(relation_generations.c.learned_at < learned_at))


async def run(settings: RelationsJobSettings) -> str:
    """One run over the database that `settings` names."""
    database = Database(settings)
    try:
        return await RelationsJob(database, settings).run(time.time_ns() // 1_000)
    finally:
        await database.close()


def _run(settings: RelationsJobSettings) -> None:
    os.nice(_NICE)
    print_line(asyncio.run(run(settings)))


if __name__ == "__main__":
    main(RelationsJobSettings, _run)
