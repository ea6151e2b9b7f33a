"""How a request's deadline is shared among its stages, so that one that hangs leaves time for an answer without it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from shared.errors import DeadlineError

RemainingS = Callable[[], float | None]
"""Seconds left of the call being served; `None` when nothing bounds it (`shared.rpc.deadline.remaining_s`)."""


@dataclass(frozen=True, slots=True)
class StageBudget:
    """At most `cap_s` seconds, at most `share` (0 to 1) of what is left, and never the last `reserve_s` seconds."""

    cap_s: float
    share: float = 1.0
    reserve_s: float = 0.0

    def timeout_s(self, remaining_s: float | None) -> float:
        """What the stage may take when `remaining_s` of the deadline is left.

        Raises `DeadlineError` when that is nothing, so that work which nobody waits for is not started.
        """
        if remaining_s is None:
            return self.cap_s
        timeout = min(self.cap_s, self.share * remaining_s, remaining_s - self.reserve_s)
        return _positive(timeout)

    def countdown(self, remaining_s: float | None, clock: Callable[[], float] = time.monotonic) -> Callable[[], float]:
        """What each call of a stage of several may take, which is what the calls before it have left of the whole.

        Raises `DeadlineError`, now or when asked, when that is nothing.
        """
        end = clock() + self.timeout_s(remaining_s)
        return lambda: _positive(end - clock())


def _positive(timeout_s: float) -> float:
    if timeout_s <= 0:
        raise DeadlineError("too little of the deadline is left; allow the call more time")
    return timeout_s
