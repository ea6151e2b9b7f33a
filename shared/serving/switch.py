"""The model that answers, and another put in its place while calls run.

A call keeps the model it began with to its end, so that its vectors, the version it tells, and the batches it is part
of are of one model. What was replaced is closed once its last call has ended.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from shared.bundles import Bundle
from shared.inference import Batcher


class Model(Protocol):
    """What can be switched: an encoder or a scorer, started and warm."""

    @property
    def bundle(self) -> Bundle:
        """What it was loaded from."""

    @property
    def batcher(self) -> Batcher[Any, Any]:
        """Its own."""

    async def close(self) -> None:
        """Ends it; what still runs fails."""


ModelT = TypeVar("ModelT", bound=Model)


class _Place(Generic[ModelT]):
    """A model, and how many calls run on it."""

    def __init__(self, model: ModelT) -> None:
        self.model = model
        self.calls = 0
        self.left = asyncio.Event()
        self.left.set()


class Switch(Generic[ModelT]):
    """Belongs to one event loop."""

    def __init__(self, first: ModelT) -> None:
        self._place = _Place(first)

    @property
    def now(self) -> ModelT:
        """The model that new calls get."""
        return self._place.model

    @contextmanager
    def use(self) -> Iterator[ModelT]:
        """The model that answers, for one call: open until the block ends, whatever replaces it meanwhile."""
        place = self._place
        place.calls += 1
        place.left.clear()
        try:
            yield place.model
        finally:
            place.calls -= 1
            if not place.calls:
                place.left.set()

    async def replace(self, model: ModelT) -> None:
        """New calls get `model` from now on; returns once the old one's calls have ended and it is closed."""
        old, self._place = self._place, _Place(model)
        try:
            await old.left.wait()
        finally:
            await old.model.close()

    async def close(self) -> None:
        """Closes the model, with what runs on it."""
        await self.now.close()

    async def health(self) -> str | None:
        """Why the model cannot answer now; `None` where it can."""
        health = self.now.batcher.health
        return None if health.ok else health.reason
