"""Query vectors that were computed before, and a single flight for those being computed now.

Equal queries that arrive together run once, whoever asked first. The computation belongs to all who wait for it:
one caller's cancellation or nearer deadline does not take it from the others, and when nobody waits any more it
is cancelled.

Token vectors are kept where they were asked for: they take several times the bytes of the vector. What is known without
them is computed again for the first who asks.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.errors import AisleError, DeadlineError, OverloadedError
from shared.inference.lru import BytesLRU
from shared.inference.observer import EngineObserver, NoObserver
from shared.inference.queue import Priority


class QueryVectors(NamedTuple):
    """What a text was encoded to."""

    sentence: NDArray[np.float32]
    """(dimensions,)."""
    rows: NDArray[np.float16] | None = None
    """(tokens + 1, hidden): what `text_rows` gives, where it was asked for."""

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.sentence.nbytes + (0 if self.rows is None else self.rows.nbytes)


Outcome = QueryVectors | AisleError


class Key(NamedTuple):
    """Same key, same vector."""

    version: str
    """Of the model."""
    text: str
    """As the tokenizer sees it: see `TextTokenizer.normalize`."""


Compute = Callable[[Sequence[Key]], Awaitable[Sequence[Outcome]]]


class _Flight:
    """One running computation of some keys, with or without token vectors."""

    def __init__(self, keys: Sequence[Key], compute: Compute, token_vectors: bool) -> None:
        self.keys = keys
        self.token_vectors = token_vectors
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
        self._known: BytesLRU[Key, QueryVectors] = BytesLRU(max_bytes, lambda key, v: len(key.text) * 4 + v.nbytes)
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
        self,
        keys: Sequence[Key],
        compute: Compute,
        *,
        token_vectors: bool = False,
        priority: Priority,
        deadline: float | None,
    ) -> list[Outcome]:
        """One outcome a key, in order; keys that are not known go to `compute` in one call. With `token_vectors`, which
        `compute` then gives, every result has its rows; without, some may have.

        Raises what `compute` raises, and `DeadlineError` when the deadline passes first. Errors are not kept.
        """
        found: dict[Key, Outcome] = {}
        missing = []
        for key in dict.fromkeys(keys):
            vectors = self._known.get(key)
            if vectors is not None and (vectors.rows is not None or not token_vectors):
                found[key] = vectors
                self._count(hit=True)
            else:
                missing.append(key)
        retried = False
        while missing:
            joined, own = self._board(missing, compute, token_vectors, priority, count=not retried)
            await self._land([*joined, *own], deadline)
            missing = self._collect(joined, own, missing, found, deadline)
            retried = True
        return [found[key] for key in keys]

    def _board(
        self, keys: Sequence[Key], compute: Compute, token_vectors: bool, priority: Priority, *, count: bool
    ) -> tuple[list[_Flight], list[_Flight]]:
        """The flights that will bring `keys`: running ones that are joined, and a new one for the rest, if any."""
        joined: dict[_Flight, None] = {}
        grounded = []
        for key in keys:
            flight = self._flights.get((priority, key))
            if flight is not None and token_vectors and not flight.token_vectors:
                flight = None
            if count:
                self._count(hit=flight is not None)
            if flight is not None:
                joined[flight] = None
            else:
                grounded.append(key)
        if not grounded:
            return list(joined), []
        own = _Flight(grounded, compute, token_vectors)
        for key in grounded:
            self._flights[priority, key] = own
        own.task.add_done_callback(lambda _: self._retire(own, priority))
        return list(joined), [own]

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
        self,
        joined: Sequence[_Flight],
        own: Sequence[_Flight],
        keys: Sequence[Key],
        found: dict[Key, Outcome],
        deadline: float | None,
    ) -> list[Key]:
        """Fill `found`; returns what has to be tried again: another caller's deadline was not ours, and where there was
        no room for its many rows there may be for fewer."""
        landed: dict[Key, Outcome] = {}
        again = False
        for flight in [*joined, *own]:
            if flight.task.cancelled():
                again = True
                continue
            error = flight.task.exception()
            if error is None:
                landed.update(flight.task.result())
            # Rows expire a little before their deadline: one's own flight can be late while time is left.
            elif flight in joined and self._is_anothers(error, len(flight.keys) > len(keys), deadline):
                again = True
            else:
                raise error
        found.update((key, landed[key]) for key in keys if key in landed)
        return [key for key in keys if key not in landed] if again else []

    def _is_anothers(self, error: BaseException, larger: bool, deadline: float | None) -> bool:
        """Whether the error of a flight that was joined says nothing of this caller; `larger`: it was for more rows."""
        if isinstance(error, DeadlineError):
            return self._time_left(deadline)
        return larger and isinstance(error, OverloadedError)

    def _retire(self, flight: _Flight, priority: Priority) -> None:
        self._take_off_board(flight)
        if flight.task.cancelled() or flight.task.exception() is not None:
            return
        for key, outcome in flight.task.result().items():
            # What has token vectors is not replaced by what has none.
            if not isinstance(outcome, AisleError) and (flight.token_vectors or self._known.get(key) is None):
                # A copy: a row of a batch's array would keep the whole batch in memory.
                self._known.put(key, outcome._replace(sentence=outcome.sentence.copy()))
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
