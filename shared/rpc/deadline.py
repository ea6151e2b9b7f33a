"""Deadlines: every downstream call gets what is left of the caller's, never more."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from shared.errors import DeadlineError
from shared.rpc.context import current_deadline


def deadline() -> float | None:
    """The absolute `time.monotonic()` by which the call being served must answer; `None` outside a call."""
    return current_deadline()


def remaining_s() -> float | None:
    """Seconds left of the call being served, negative once it is late; `None` outside a call."""
    at = current_deadline()
    return None if at is None else at - time.monotonic()


def timeout_s(cap_s: float, reserve_s: float = 0.0) -> float:
    """Seconds a downstream call may take: at most `cap_s`, leaving `reserve_s` of the deadline for what follows.

    Raises `DeadlineError` when nothing is left, so that work which nobody waits for is not started.
    """
    left = remaining_s()
    timeout = cap_s if left is None else min(cap_s, left - reserve_s)
    if timeout <= 0:
        raise DeadlineError("too little of the deadline is left; allow the call more time")
    return timeout


@contextlib.asynccontextmanager
async def within(cap_s: float) -> AsyncIterator[None]:
    """Ends the block after `timeout_s(cap_s)` seconds.

    Raises `DeadlineError` when it was the deadline that ended it, and `TimeoutError` when it was `cap_s`. Which of
    the two is known from the start: what is left afterwards does not tell, for uvloop counts in whole milliseconds,
    and may be one early.
    """
    timeout = timeout_s(cap_s)
    try:
        async with asyncio.timeout(timeout) as limit:
            yield
    except TimeoutError:
        if limit.expired() and timeout < cap_s:
            raise DeadlineError("no answer before the deadline; allow the call more time") from None
        raise
