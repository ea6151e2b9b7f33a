"""Answers kept for a few seconds, each made once however many ask for it at once, and made anew behind their backs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")

STALE_S = 60.0
"""An answer that was not asked for longer than this is made anew before it is given."""
SHARE = 0.1
"""Of the time goes into making one answer, at most: one that takes long is kept longer."""
_MOST = 100
"""Different answers kept: windows of time, of which a shop asks for a few."""


@dataclass(frozen=True, slots=True)
class _Answer(Generic[Value]):
    value: Value
    fresh_until: float
    good_until: float


class Cache(Generic[Value]):
    """Keeps each answer for `seconds`; with 0, not at all."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._made: dict[Hashable, _Answer[Value]] = {}
        self._making: dict[Hashable, asyncio.Task[Value]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[Value]]) -> Value:
        """The answer for `key`: one that is kept, or what `make` gives. One that has just become old is given once
        more, while the next is made."""
        known = self._made.get(key)
        now = self._now()
        if known is not None and now < known.fresh_until:
            return known.value
        if key not in self._making:
            # A task of its own, with nobody's deadline: whoever asked first may leave without the others losing
            # their answer, and what takes longer than a caller waits is there for the next.
            task = asyncio.get_running_loop().create_task(self._make(key, make), context=Context())
            task.add_done_callback(_looked_at)
            self._making[key] = task
        if known is not None and now < known.good_until:
            return known.value
        return await asyncio.shield(self._making[key])

    async def close(self) -> None:
        """Ends what is being made."""
        for task in self._making.values():
            task.cancel()
        await asyncio.gather(*self._making.values(), return_exceptions=True)

    async def _make(self, key: Hashable, make: Callable[[], Awaitable[Value]]) -> Value:
        started = self._now()
        try:
            value = await make()
        finally:
            del self._making[key]
        if self._seconds:
            ended = self._now()
            fresh_until = ended + max(self._seconds, (ended - started) / SHARE)
            if len(self._made) >= _MOST:
                self._made.clear()
            self._made[key] = _Answer(value, fresh_until, fresh_until + STALE_S)
        return value


def _looked_at(task: "asyncio.Task[Value]") -> None:
    # Asked for, so that asyncio does not report an error whose callers have left; the next caller tries again.
    if not task.cancelled():
        task.exception()
