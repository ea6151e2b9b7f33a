"""Answers kept for a few seconds, each made once however many ask for it at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")

_MOST = 100
"""Different answers kept: windows of time, of which a shop asks for a few."""


class Cache(Generic[Value]):
    """Keeps each answer for `seconds`."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._made: dict[Hashable, tuple[float, Value]] = {}
        self._making: dict[Hashable, asyncio.Future[Value]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[Value]]) -> Value:
        """The answer for `key`: one that is kept, one that is being made, or what `make` gives."""
        known = self._made.get(key)
        if known is not None and self._now() < known[0]:
            return known[1]
        if key not in self._making:
            # A task of its own: whoever asked first may leave without the others losing their answer.
            self._making[key] = asyncio.ensure_future(self._make(key, make))
        return await asyncio.shield(self._making[key])

    async def _make(self, key: Hashable, make: Callable[[], Awaitable[Value]]) -> Value:
        try:
            value = await make()
            if len(self._made) >= _MOST:
                self._made.clear()
            self._made[key] = (self._now() + self._seconds, value)
            return value
        finally:
            del self._making[key]
