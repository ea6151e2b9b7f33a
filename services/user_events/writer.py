"""Group commit: what waits is written in one transaction, and every caller is answered after it.

A transaction costs a wait for the disk however much is in it. So one writer takes whatever has come in while the last
transaction ran; under load the groups grow by themselves, and a lone event waits for nobody.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from services.user_events.events import Event
from services.user_events.failures import LostConnectionError, RowsRefusedError
from shared.errors import OverloadedError


class Outcome(Enum):
    """What became of an event."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    """The database would not have it, whatever it is that the rules do not know of."""


Append = Callable[[Sequence[Event]], Awaitable[Sequence[bool]]]
"""Stores events in one transaction; says of each whether it is new. Raises `RowsRefusedError`."""


class Gauge(Protocol):
    """Shows a number."""

    def set(self, value: float) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class _Request:
    events: Sequence[Event]
    done: "asyncio.Future[list[Outcome]]"


class GroupCommit:
    """Writes with `append`: at most `buffer_events` wait, of which about `commit_events` go into one transaction.
    `waiting` shows how many wait."""

    def __init__(self, append: Append, buffer_events: int, commit_events: int, waiting: Gauge) -> None:
        self._append = append
        self._buffer_events = buffer_events
        self._commit_events = commit_events
        self._gauge = waiting
        self._queue: deque[_Request] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to write."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Writes what waits, and ends."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task

    async def write(self, events: Sequence[Event]) -> list[Outcome]:
        """What became of `events`, once they are durable. Raises `OverloadedError` when the buffer is full, and what
        the database raises.

        A caller that leaves before its turn leaves nothing; after that its events are stored all the same.
        """
        if self._waiting and self._waiting + len(events) > self._buffer_events:
            raise OverloadedError(f"{self._waiting:,} events wait to be written; send these again shortly")
        request = _Request(events, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self._count(len(events))
        self._wake.set()
        return await request.done

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            group = self._take()
            if not group:
                if self._closing:
                    return
                self._wake.clear()
                continue
            await self._serve(group)

    def _take(self) -> list[_Request]:
        group: list[_Request] = []
        events = 0
        while self._queue and (not group or events + len(self._queue[0].events) <= self._commit_events):
            request = self._queue.popleft()
            self._count(-len(request.events))
            if not request.done.done():
                group.append(request)
                events += len(request.events)
        return group

    async def _serve(self, group: Sequence[_Request]) -> None:
        try:
            outcomes = iter(await self._store([event for request in group for event in request.events]))
        except Exception as error:
            for request in group:
                if not request.done.done():
                    request.done.set_exception(error)
            return
        for request in group:
            told = [next(outcomes) for _ in request.events]
            if not request.done.done():
                request.done.set_result(told)

    async def _store(self, events: Sequence[Event]) -> list[Outcome]:
        try:
            new = await self._append_surely(events)
        except RowsRefusedError:
            if len(events) == 1:
                return [Outcome.REFUSED]
            # Halved until the one that is refused is alone, so that its neighbours are stored.
            half = len(events) // 2
            return await self._store(events[:half]) + await self._store(events[half:])
        return [Outcome.STORED if is_new else Outcome.DUPLICATE for is_new in new]

    async def _append_surely(self, events: Sequence[Event]) -> Sequence[bool]:
        try:
            return await self._append(events)
        except LostConnectionError:
            # After a restart of the database every pooled connection is found broken once. To write the same events
            # twice is to write them once.
            return await self._append(events)

    def _count(self, events: int) -> None:
        self._waiting += events
        self._gauge.set(self._waiting)
