"""The log, in the order of its arrival: read in pages, gone on with from a cursor."""

import base64
import binascii
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, func, select, text

from services.user_events.database import Database
from services.user_events.events import Event, EventType
from services.user_events.journal import BARRIER
from services.user_events.schema import event_of, events
from shared.errors import InvalidArgumentError

PAGE_EVENTS = 500

_LOOKED_AT = 20_000
"""Events that one statement looks at, wanted or not: 20 MB, within `read_timeout_s` on a slow disk too. No index is by
arrival and time or type as well, so that without a bound it may pass over the whole log in search of a page."""
_CURSOR_FORMAT = b"\x01"
_CURSOR_BYTES = 8
_BARRIER_WAIT_MS = 1_000
"""Writers wait behind whoever waits for them: not for long."""


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of the log, and the cursor that goes on after it."""

    events: Sequence[Event]
    cursor: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events. Times in microseconds since 1970, `since` included, `before` not; all `types` when empty."""

    since: int | None = None
    before: int | None = None
    types: Collection[EventType] = ()


class Log:
    """All events that there are."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, selection: Selection, cursor: str) -> AsyncIterator[Page]:
        """What came after `cursor` (empty: all), up to what is there now. A page may be empty: its cursor says how far
        was looked.

        Raises `InvalidArgumentError` for a cursor that is none.
        """
        after = _seq(cursor)
        query = select(events).where(*_conditions(selection))
        async for rows, looked in pages(self._database, query, after, await self.end(), PAGE_EVENTS):
            yield Page([event_of(row) for row in rows], _cursor(looked))

    async def end(self) -> int:
        """The number up to which the log is complete: no event of a lower one will ever come.

        PostgreSQL numbers rows when they are inserted and shows them when they are committed, which may be in another
        order. Each writer holds a lock in common with the others; to have it alone for a moment is to know that
        nobody holds a number that is not committed.
        """
        highest = select(func.coalesce(func.max(events.c.seq), 0))
        if not self._database.is_server:
            async with self._database.reading() as connection:
                return int((await connection.execute(highest)).scalar_one())
        async with self._database.writing() as connection:
            await connection.execute(text(f"SET LOCAL lock_timeout = {_BARRIER_WAIT_MS}"))
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": BARRIER})
            return int((await connection.execute(highest)).scalar_one())


async def pages(
    database: Database, query: Select[Any], after: int, end: int, most: int
) -> AsyncIterator[tuple[Sequence[RowMapping], int]]:
    """What `query` finds among the events with numbers above `after` and up to `end`, in their order: up to `most`
    rows at a time, or none, and the number up to which was looked. `query` has the column `seq`."""
    while after < end:
        bound = min(after + _LOOKED_AT, end)
        page = query.where(events.c.seq > after, events.c.seq <= bound).order_by(events.c.seq).limit(most)
        async with database.reading() as connection:
            rows = (await connection.execute(page)).mappings().all()
        after = rows[-1]["seq"] if len(rows) == most else bound
        yield rows, after


def _conditions(selection: Selection) -> list[ColumnElement[bool]]:
    found = []
    if selection.since is not None:
        found.append(events.c.occurred_at >= selection.since)
    if selection.before is not None:
        found.append(events.c.occurred_at < selection.before)
    if selection.types:
        found.append(events.c.type.in_(sorted(selection.types)))
    return found


def _cursor(seq: int) -> str:
    return base64.urlsafe_b64encode(_CURSOR_FORMAT + seq.to_bytes(_CURSOR_BYTES)).decode()


def _seq(cursor: str) -> int:
    if not cursor:
        return 0
    try:
        raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != 1 + _CURSOR_BYTES or not raw.startswith(_CURSOR_FORMAT):
        raise InvalidArgumentError.of("cursor", "is none of this service's: send the last one as it was received")
    return int.from_bytes(raw[1:])
