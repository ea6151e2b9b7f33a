"""Reading about one user, and forgetting one."""

import uuid
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, tuple_

from services.user_events.database import Database
from services.user_events.events import Event, EventType
from services.user_events.schema import event_of, events, receipts, users
from shared.errors import NotFoundError

PAGE_EVENTS = 500


@dataclass(frozen=True, slots=True)
class History:
    """A user's latest events, the newest first. `version` 0 belongs to a user who has none."""

    version: int
    events: Sequence[Event] = ()
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that somebody was forgotten. `forgotten_at` is in microseconds since 1970."""

    id: str
    forgotten_at: int
    events: int


class Histories:
    """What is kept about each user, by key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def latest(
        self, user_key: bytes, types: Collection[EventType], limit: int, since: int | None, known_version: int
    ) -> History:
        """The latest `limit` events of `types`, none of which occurred before `since` (microseconds since 1970).

        Never `unchanged` with impressions among `types`, which do not raise the version.
        """
        async with self._database.reading() as connection:
            found = await connection.execute(select(users.c.version).where(users.c.user_key == user_key))
            # Read first: where an event comes in between, the events are newer than their version, which is found out
            # the next time, and not older, which never would be.
            version = found.scalar_one_or_none() or 0
            if version == known_version and version and EventType.IMPRESSION not in types:
                return History(version, unchanged=True)
            if not version:
                return History(0)
            query = (
                select(events)
                .where(events.c.user_key == user_key, events.c.type.in_(sorted(types)))
                .order_by(events.c.occurred_at.desc(), events.c.seq.desc())
                .limit(limit)
            )
            if since is not None:
                query = query.where(events.c.occurred_at >= since)
            rows = (await connection.execute(query)).mappings().all()
        return History(version, [event_of(row) for row in rows])

    async def export(self, user_key: bytes) -> AsyncIterator[list[Event]]:
        """All events of a user by when they occurred, the oldest first, in pages."""
        place = tuple_(events.c.occurred_at, events.c.seq)
        after: tuple[int, int] | None = None
        while True:
            query = select(events).where(events.c.user_key == user_key).order_by(*place.clauses).limit(PAGE_EVENTS)
            if after is not None:
                query = query.where(place > after)
            async with self._database.reading() as connection:
                rows = (await connection.execute(query)).mappings().all()
            if rows:
                yield [event_of(row) for row in rows]
            if len(rows) < PAGE_EVENTS:
                return
            after = (rows[-1]["occurred_at"], rows[-1]["seq"])

    async def known_since(self, user_keys: Collection[bytes]) -> dict[bytes, int]:
        """When the first event that is still kept of each user arrived (microseconds since 1970). Who has none is not
        in it."""
        first = func.min(events.c.arrived_at)
        query = select(events.c.user_key, first).where(events.c.user_key.in_(user_keys)).group_by(events.c.user_key)
        async with self._database.reading() as connection:
            return dict(iter(await connection.execute(query)))

    async def forget(self, user_key: bytes, now: int) -> Receipt:
        """Deletes all that is kept about a user. Counts stay, which say what was done and not by whom.

        Raises `NotFoundError` when nothing is kept.
        """
        async with self._database.writing() as connection:
            # The row stands for the user: whoever writes events of the same user at this moment waits for it, or is
            # waited for. Before the events, as `Retention` has it.
            known = await connection.execute(delete(users).where(users.c.user_key == user_key))
            gone = await connection.execute(delete(events).where(events.c.user_key == user_key))
            if not known.rowcount and not gone.rowcount:
                raise NotFoundError("user", user_key.hex())
            receipt = Receipt(str(uuid.uuid4()), now, gone.rowcount)
            await connection.execute(insert(receipts).values(id=receipt.id, forgotten_at=now, events=receipt.events))
        # Where it cannot be yet, the background does it. The user is forgotten, and the caller told so.
        await self._database.empty_log()
        return receipt
