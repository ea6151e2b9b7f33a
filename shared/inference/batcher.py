"""From many small asyncio callers to few large forward passes in one thread.

    event loop                                          batch thread
    ----------                                          ------------
    submit(rows) ──→ WorkQueue ──────────────────────→  take → prepare → run → finish
        await a future  ←── _deliver, once a batch ←──  call_soon_threadsafe

The thread takes whatever waits as soon as it is free. So an idle server runs a single request at once, and a
busy one finds a batch that grew while the last one ran: no timer has to guess how long to wait. Callers tokenise
on the loop meanwhile, or in threads, with room in the queue kept for the rows (`room_for`): what is being tokenised is
bounded as what waits is.

A request is a list of rows that may be spread over several batches. Every row ends as a result or as an error of
its own; a request ends when its last row does, at its deadline, or when its caller is cancelled.
"""

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from shared.errors import (
    DEFAULT_RETRY_AFTER_S,
    AisleError,
    DeadlineError,
    OverloadedError,
    UnavailableError,
)
from shared.inference.backend import Backend
from shared.inference.forward import Done, Forward
from shared.inference.observer import BatchTracer, EngineObserver, NoObserver
from shared.inference.pace import Pace
from shared.inference.queue import Limits, Priority, Work, WorkQueue
from shared.inference.watchdog import HEALTHY, Health, Watchdog, watch

log = logging.getLogger(__name__)


class Sized(Protocol):
    """A row says how many tokens it is."""

    def __len__(self) -> int:
        """Tokens."""


RowT = TypeVar("RowT", bound=Sized)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Durations of the batcher, in seconds."""

    stall_after_s: float = 10.0
    """A forward pass longer than this is a stall. Above the longest honest batch, below a probe's patience."""
    check_every_s: float = 0.25
    """How soon health follows."""
    bulk_slice_s: float = 0.005
    """How long one bulk batch may keep an interactive caller waiting, while there are any."""
    interactive_memory_s: float = 1.0
    """For how long after its last row an interactive caller is expected back."""


class _Request(Generic[ResultT]):
    __slots__ = ("future", "missing", "origin", "outcomes", "timer", "works")

    def __init__(self, future: "asyncio.Future[None]", rows: int, origin: Any) -> None:
        self.future = future
        self.origin = origin
        self.outcomes: list[ResultT | AisleError | None] = [None] * rows
        self.missing = rows
        self.timer: asyncio.TimerHandle | None = None
        self.works: list[_Row[ResultT]] = []


@dataclass(slots=True, eq=False, kw_only=True)
class _Row(Work, Generic[ResultT]):
    request: _Request[ResultT]
    index: int
    payload: Sized

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for it yet."""
        return not self.request.future.done()


class Batcher(Generic[RowT, ResultT]):
    """One model, one thread, one queue. Bound to the event loop that `start` was awaited on."""

    def __init__(
        self,
        backend: Backend[RowT, ResultT],
        limits: Limits | None = None,
        *,
        observer: EngineObserver | None = None,
        tracer: BatchTracer | None = None,
        timing: Timing | None = None,
        name: str = "engine",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.limits = limits or Limits()
        self._timing = timing or Timing()
        self._observer = observer or NoObserver()
        self._tracer = tracer
        self._clock = clock
        self._pace = Pace()
        self._queue: WorkQueue[_Row[ResultT]] = WorkQueue(self.limits)
        self._wake = threading.Condition(threading.Lock())
        """Guards `_queue`, `_closing` and `_interactive_at`."""
        self._watchdog = Watchdog(self._timing.stall_after_s)
        self._forward = Forward(backend, self._watchdog, self._pace, self._observer, clock)
        self._thread = threading.Thread(target=self._work, name=f"{name}-batches", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[Health], None]] = []
        self._open: set[_Request[ResultT]] = set()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._draining = False
        self._closing = False
        self._interactive_at = -math.inf
        self._crash: BaseException | None = None

    # ---------------------------------------------------------------- life

    async def start(self) -> None:
        """Start the thread and the watchdog. Once only."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._watching = asyncio.create_task(
            watch(lambda: self.health, self._tell, self._timing.check_every_s), name=f"{self.name}-watchdog"
        )

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new work and wait for what was let in; False if some is left after `timeout_s`."""
        self._draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._emptied.wait(), timeout_s)
        return not self._open

    async def close(self, timeout_s: float = 5.0) -> None:
        """Fail what is left with `UnavailableError` and end the thread. Idempotent.

        A thread stuck in a forward pass is left behind after `timeout_s`: it is a daemon.
        """
        self._draining = True
        with self._wake:
            self._closing = True
            self._wake.notify()
        for request in list(self._open):
            self._end(request, UnavailableError(self.name, f"{self.name} is shutting down", reason="DRAINING"))
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, timeout_s)

    @property
    def health(self) -> Health:
        """Whether work is being answered now. Cheap; from any thread."""
        if self._crash is not None:
            return Health(ok=False, reason=f"the batch thread ended: {type(self._crash).__name__}")
        if not self._thread.is_alive():
            return Health(ok=False, reason="not running")
        if self._draining:
            return Health(ok=False, reason="draining")
        now = self._clock()
        with self._wake:
            oldest = self._queue.oldest_at()
        return self._watchdog.check(now, 0.0 if oldest is None else now - oldest)

    def on_health(self, listener: Callable[[Health], None]) -> None:
        """Have `listener` called on the event loop when `health.ok` changes."""
        self._listeners.append(listener)

    # ---------------------------------------------------------------- work

    async def submit(
        self, rows: Sequence[RowT], *, priority: Priority = Priority.INTERACTIVE, deadline: float | None = None
    ) -> list[ResultT | AisleError]:
        """One outcome a row, in order: a result, the error that row alone met, or `DeadlineError`.

        Returns at the deadline (`time.monotonic` seconds) at the latest, with what there is by then. Raises
        `OverloadedError` when the queue is full, `DeadlineError` when the deadline has already passed, and
        `UnavailableError` when draining. Cancelling the caller withdraws its rows.
        """
        if not rows:
            return []
        request = self._admit(rows, priority, deadline)
        try:
            await request.future
        except asyncio.CancelledError:
            self._abandon(request)
            raise
        finally:
            self._forget(request)
        return [outcome for outcome in request.outcomes if outcome is not None]

    @contextlib.contextmanager
    def room_for(self, rows: int, priority: Priority) -> Iterator[None]:
        """Keeps room for rows that are still being made: `submit` lets them in if it is called right after the block,
        before anything is awaited.

        Raises `OverloadedError` and `UnavailableError` where `submit` would, before any work went into the rows.
        """
        self._taking_work(rows)
        with self._wake:
            reserved = self._queue.reserve(priority, rows)
        if not reserved:
            raise self._full(rows, priority)
        try:
            yield
        finally:
            with self._wake:
                self._queue.release(priority, rows)

    def _taking_work(self, rows: int) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None or self._draining or self._crash is not None:
            self._observer.refused("DRAINING", rows)
            raise UnavailableError(
                self.name, f"{self.name} is not taking work: {self.health.reason}", reason="DRAINING"
            )
        return loop

    def _full(self, rows: int, priority: Priority) -> OverloadedError:
        with self._wake:
            ahead = self._queue.tokens(priority)
            depth = self._queue.rows(priority) + self._queue.reserved(priority)
        self._observer.refused(OverloadedError.reason, rows)
        return OverloadedError(
            f"{depth} {priority} rows wait in {self.name}: no room for {rows} more; retry after a pause",
            retry_after_s=self._pace.retry_after_s(ahead, DEFAULT_RETRY_AFTER_S),
        )

    def _admit(self, rows: Sequence[RowT], priority: Priority, deadline: float | None) -> _Request[ResultT]:
        loop = self._taking_work(len(rows))
        now = self._clock()
        if deadline is not None and deadline <= now:
            self._observer.dropped("deadline", len(rows))
            raise DeadlineError("the deadline had passed before the work was queued")
        request: _Request[ResultT] = _Request(
            loop.create_future(), len(rows), None if self._tracer is None else self._tracer.origin()
        )
        until = math.inf if deadline is None else deadline
        request.works = [
            _Row(
                size=len(row),
                priority=priority,
                queued_at=now,
                deadline=until,
                request=request,
                index=index,
                payload=row,
            )
            for index, row in enumerate(rows)
        ]
        with self._wake:
            accepted = self._queue.offer(request.works)
            if priority is Priority.INTERACTIVE:
                self._interactive_at = now
            if accepted:
                self._tell_depth(priority)
                self._wake.notify()
        if not accepted:
            raise self._full(len(rows), priority)
        self._open.add(request)
        self._emptied.clear()
        if deadline is not None:
            request.timer = loop.call_later(deadline - now, self._expire, request)
        return request

    def _withdraw(self, request: _Request[ResultT]) -> int:
        with self._wake:
            withdrawn = self._queue.withdraw(request.works)
            if withdrawn:
                self._tell_depth(request.works[0].priority)
        return withdrawn

    def _tell_depth(self, priority: Priority) -> None:
        """While `_wake` is held: told outside it, an older depth could be the last."""
        self._observer.queue_depth(priority, self._queue.rows(priority))

    def _abandon(self, request: _Request[ResultT]) -> None:
        if withdrawn := self._withdraw(request):
            self._observer.dropped("cancelled", withdrawn)

    def _expire(self, request: _Request[ResultT]) -> None:
        if not request.future.done():
            if withdrawn := self._withdraw(request):
                self._observer.dropped("deadline", withdrawn)
            self._settle(request, DeadlineError("the deadline passed before the work was done"))

    def _end(self, request: _Request[ResultT], error: AisleError) -> None:
        """Fail a whole request."""
        if not request.future.done():
            self._withdraw(request)
            request.future.set_exception(error)

    def _settle(self, request: _Request[ResultT], error: AisleError) -> None:
        """End a request with what there is, `error` standing for what is not."""
        request.outcomes = [error if outcome is None else outcome for outcome in request.outcomes]
        request.future.set_result(None)

    def _forget(self, request: _Request[ResultT]) -> None:
        if request.timer is not None:
            request.timer.cancel()
        self._open.discard(request)
        if not self._open:
            self._emptied.set()

    def _deliver(self, done: Done[_Row[ResultT], ResultT]) -> None:
        """On the event loop: outcomes of one batch to their requests."""
        for row, outcome in done:
            request = row.request
            request.outcomes[row.index] = outcome
            request.missing -= 1
            if not request.missing and not request.future.done():
                request.future.set_result(None)

    def _tell(self, health: Health) -> None:
        for listener in self._listeners:
            listener(health)

    # ---------------------------------------------------------------- batch thread

    def _work(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                self._post(self._run(batch))
        except BaseException as error:
            # Whatever this is, it is a bug of the engine and not of a row: say so in health, answer everybody.
            log.exception("%s: the batch thread ended", self.name)
            self._crash = error
            self._call(self._fail_all)

    def _run(self, batch: Sequence[_Row[ResultT]]) -> Done[_Row[ResultT], ResultT]:
        if self._tracer is None:
            return self._forward(batch)
        origins = [row.request.origin for row in batch if row.request.origin is not None]
        if not origins:
            return self._forward(batch)
        with self._tracer.batch(origins, len(batch), sum(row.size for row in batch)):
            return self._forward(batch)

    def _next_batch(self) -> Sequence[_Row[ResultT]] | None:
        """Wait for work; None when closing."""
        while True:
            with self._wake:
                while not len(self._queue) and not self._closing:
                    self._wake.wait()
                if self._closing:
                    return None
                now = self._clock()
                taken = self._queue.take(now, least_s=self._pace.least_s, bulk_tokens=self._bulk_tokens(now))
                for priority in Priority:
                    self._tell_depth(priority)
            if taken.expired:
                self._observer.dropped("deadline", len(taken.expired))
                late = DeadlineError("too little time was left for the work when its turn came")
                self._post([(row, late) for row in taken.expired])
            for row in taken.batch:
                self._observer.queue_wait(row.priority, now - row.queued_at)
            if taken.batch:
                return taken.batch

    def _bulk_tokens(self, now: float) -> int | None:
        """A small bulk batch while interactive callers are around: nothing preempts a forward pass."""
        if now - self._interactive_at > self._timing.interactive_memory_s:
            return None
        return self._pace.tokens_in(self._timing.bulk_slice_s)

    def _post(self, done: Done[_Row[ResultT], ResultT]) -> None:
        self._call(self._deliver, done)

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None  # noqa: S101 - the thread is started by `start`, which sets it
        # The loop may close while a last batch runs; nobody is left to be told then.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _fail_all(self) -> None:
        for request in list(self._open):
            self._end(request, UnavailableError(self.name, f"{self.name} has failed and needs a restart"))


__all__ = ["HEALTHY", "Batcher", "Health", "Timing"]
