"""What the engine tells whoever measures it. The engine itself knows no metrics library."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from shared.inference.queue import Priority


class EngineObserver(Protocol):
    """Called from the event loop and from the batch thread: be thread-safe and quick, and do not raise."""

    def queue_depth(self, priority: Priority, rows: int) -> None:
        """Rows now waiting in one class; called with the queue's lock held."""

    def queue_wait(self, priority: Priority, seconds: float) -> None:
        """How long one row waited, when it is taken into a batch."""

    def batch(self, rows: int, tokens: int, padding_share: float, seconds: float) -> None:
        """One forward pass: real tokens, the share of the padded area that is padding (0 to 1), its duration."""

    def cache(self, *, hit: bool) -> None:
        """One look-up of the query cache; joining a running computation is a hit."""

    def cache_size(self, size: int) -> None:
        """Bytes the query cache holds."""

    def refused(self, reason: str, rows: int) -> None:
        """Rows turned away at the door; `reason` as in the error ("QUEUE_FULL", "DRAINING", …)."""

    def dropped(self, why: str, rows: int) -> None:
        """Rows that were let in and never run: "deadline" or "cancelled"."""

    def failed(self, rows: int) -> None:
        """Rows the model could not process, each found alone."""


class BatchTracer(Protocol):
    """Follows requests into the batches that serve them. Must not raise."""

    def origin(self) -> Any:
        """On the event loop, as a request is let in: what stands for it; `None` where nobody follows it."""

    def batch(self, origins: Sequence[Any], rows: int, tokens: int) -> AbstractContextManager[Any]:
        """On the batch thread: one forward pass of `rows` with `tokens` real tokens, for `origins` among others, none
        of which is `None`; entered before and left after it."""


class NoObserver:
    """Nobody is watching."""

    def queue_depth(self, priority: Priority, rows: int) -> None:
        """Ignored."""

    def queue_wait(self, priority: Priority, seconds: float) -> None:
        """Ignored."""

    def batch(self, rows: int, tokens: int, padding_share: float, seconds: float) -> None:
        """Ignored."""

    def cache(self, *, hit: bool) -> None:
        """Ignored."""

    def cache_size(self, size: int) -> None:
        """Ignored."""

    def refused(self, reason: str, rows: int) -> None:
        """Ignored."""

    def dropped(self, why: str, rows: int) -> None:
        """Ignored."""

    def failed(self, rows: int) -> None:
        """Ignored."""
