"""Query vectors that were computed before, and a single flight for those being computed now.

Equal queries that arrive together run once, whoever asked first. The computation belongs to all who wait for it:
one caller's cancellation or nearer deadline does not take it from the others, and when nobody waits any more it
is cancelled.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.errors import AisleError, DeadlineError
from shared.inference.lru import BytesLRU
from shared.inference.observer import EngineObserver, NoObserver
from shared.inference.queue import Priority

Vector = NDArray[np.float32]
Outcome = Vector | AisleError


class Key(NamedTuple):
    """Same key, same vector."""

    version: str
    """Of the model."""
    text: str
    """As the tokenizer sees it: see `TextTokenizer.normalize`."""


Compute = Callable[[Sequence[Key]], Awaitable[Sequence[Outcome]]]


class _Flight:
    """One running computation of some keys."""

    def __init__(self, keys: Sequence[Key], compute: Compute) -> None:
        self.keys = keys
        self.waiters = 0
        self.task = asyncio.ensure_future(self._run(compute))

    async def _run(self, compute: Compute) -> dict[Key, Outcome]:
        return dict(zip(self.keys, await compute(self.keys), strict=True))


class QueryCache:
    """Bounded in bytes; `hits` and `misses` count look-ups since the start. Belongs to one event loop."""

    def __init__(
        self,
        max_bytes: int,
        *,
        observer: EngineObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known: BytesLRU[Key, Vector] = BytesLRU(max_bytes, lambda key, v: len(key.text) * 4 + v.nbytes)
        # A shopper must not wait for a bulk job's place in the queue: one flight a class.
        self._flights: dict[tuple[Priority, Key], _Flight] = {}
        self._observer = observer or NoObserver()
        self._clock = clock
        self.hits = 0
        self.misses = 0

    @property
    def bytes(self) -> int:
        """Held now."""
        return self._known.bytes

    def clear(self) -> None:
        """Forgets every vector; what is being computed goes on."""
        self._known.clear()
        self._observer.cache_size(0)

    async def fetch(
        self, keys: Sequence[Key], compute: Compute, *, priority: Priority, deadline: float | None
    ) -> list[Outcome]:
        """One outcome a key, in order; keys that are not known go to `compute` in one call.

        Raises what `compute` raises, and `DeadlineError` when the deadline passes first. Errors are not kept.
        """
        found: dict[Key, Outcome] = {}
        missing = []
        for key in dict.fromkeys(keys):
            vector = self._known.get(key)
            if vector is not None:
                found[key] = vector
                self._count(hit=True)
            else:
                missing.append(key)
        retried = False
        while missing:
            flights = self._board(missing, compute, priority, count=not retried)
            await self._land(flights, deadline)
            missing = self._collect(flights, missing, found, deadline)
            retried = True
        return [found[key] for key in keys]

    def _board(self, keys: Sequence[Key], compute: Compute, priority: Priority, *, count: bool) -> list[_Flight]:
        """The flights that will bring `keys`: running ones are joined, one new one takes the rest."""
        flights: dict[_Flight, None] = {}
        grounded = []
        for key in keys:
            flight = self._flights.get((priority, key))
            if count:
                self._count(hit=flight is not None)
            if flight is not None:
                flights[flight] = None
            else:
                grounded.append(key)
        if grounded:
            flight = _Flight(grounded, compute)
            flights[flight] = None
            for key in grounded:
                self._flights[priority, key] = flight
            flight.task.add_done_callback(lambda _: self._retire(flight, priority))
        return list(flights)

    async def _land(self, flights: Sequence[_Flight], deadline: float | None) -> None:
        for flight in flights:
            flight.waiters += 1
        try:
            timeout = None if deadline is None else max(0.0, deadline - self._clock())
            _, late = await asyncio.wait([flight.task for flight in flights], timeout=timeout)
        finally:
            for flight in flights:
                flight.waiters -= 1
                if not flight.waiters and not flight.task.done():
                    flight.task.cancel()
                    self._take_off_board(flight)
        if late:
            raise DeadlineError("the deadline passed before the work was done")

    def _collect(
        self, flights: Sequence[_Flight], keys: Sequence[Key], found: dict[Key, Outcome], deadline: float | None
    ) -> list[Key]:
        """Fill `found`; returns what has to be tried again: another caller's deadline was not ours."""
        landed: dict[Key, Outcome] = {}
        again = False
        for flight in flights:
            if flight.task.cancelled():
                again = True
                continue
            error = flight.task.exception()
            if error is None:
                landed.update(flight.task.result())
            elif isinstance(error, DeadlineError) and self._time_left(deadline):
                again = True
            else:
                raise error
        found.update((key, landed[key]) for key in keys if key in landed)
        return [key for key in keys if key not in landed] if again else []

    def _retire(self, flight: _Flight, priority: Priority) -> None:
        self._take_off_board(flight)
        if flight.task.cancelled() or flight.task.exception() is not None:
            return
        for key, outcome in flight.task.result().items():
            if not isinstance(outcome, AisleError):
                # A copy: a row of a batch's array would keep the whole batch in memory.
                self._known.put(key, outcome.copy())
        self._observer.cache_size(self._known.bytes)

    def _take_off_board(self, flight: _Flight) -> None:
        for priority in Priority:
            for key in flight.keys:
                if self._flights.get((priority, key)) is flight:
                    del self._flights[priority, key]

    def _time_left(self, deadline: float | None) -> bool:
        return deadline is None or self._clock() < deadline

    def _count(self, *, hit: bool) -> None:
        if hit:
            self.hits += 1
        else:
            self.misses += 1
        self._observer.cache(hit=hit)
