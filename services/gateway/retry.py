"""Waiting for a busy or restarting dependency: for jobs, which would rather wait than fail."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from services.gateway.budgets import RemainingS
from shared.errors import DeadlineError, OverloadedError, UnavailableError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """Tries again after `first_s` seconds, then twice that, up to `most_s`, for as long as `total_s` allows.

    A dependency that says when to come back is not asked sooner. `clock`, `sleep` and `jitter` (0 to 1) are there
    to be replaced in tests.
    """

    total_s: float
    first_s: float = 0.1
    most_s: float = 2.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random

    async def run(self, call: Callable[[], Awaitable[T]], remaining_s: RemainingS) -> T:
        """The result of `call`, which must be safe to repeat.

        Raises its last `OverloadedError`, `UnavailableError` or `DeadlineError` once the next try would come too late
        for `total_s` or for the deadline, and any other error at once.
        """
        started = self.clock()
        delay = self.first_s
        while True:
            try:
                return await call()
            except (OverloadedError, UnavailableError, DeadlineError) as error:
                # Half of the delay is random, so that importers refused together do not come back together.
                wait = max(delay * (1 + self.jitter()) / 2, getattr(error, "retry_after_s", 0.0))
                left = remaining_s()
                if self.clock() + wait - started > self.total_s or (left is not None and wait >= left):
                    raise
            await self.sleep(wait)
            delay = min(2 * delay, self.most_s)
