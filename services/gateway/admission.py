"""How many requests are worked on at once: what is more waits for a moment, or is refused while that is cheap.

    worked on   as many as are answered in good time (`pace`), `running` at most
    waiting     `waiting` more, none for longer than its patience; first come first served, and last come first served
                where there have been some for a while
    refused     all others, at once: QUEUE_FULL; and those whose patience ended: QUEUE_TIMEOUT

Once everything behind the gateway is busy, another request in progress answers none sooner. It makes all wait, until
they are answered too late and the work was for nobody. Shedding load at the front door keeps the rest in time (Google's
Site Reliability Engineering, 2016, ch. 21 and 22). A burst is served in turn. Where a queue does not empty, in turn
means that everyone waits for as long as they may, and that time is lost for the answer; so whoever came last is let in,
and what others waited for was lost to them anyway (adaptive LIFO: B. Maurer, Fail at Scale, ACM Queue 13(8), 2015).
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import structlog

from services.gateway.budgets import RemainingS, StageBudget
from services.gateway.pace import Pace
from shared.errors import DEFAULT_RETRY_AFTER_S, DeadlineError, OverloadedError
from shared.telemetry import metrics

_log = structlog.get_logger()

T = TypeVar("T")

_STANDING_S = 0.1
"""A queue that has been there for longer is no burst: the interval of CoDel (Nichols & Jacobson, Controlling Queue
Delay, ACM Queue 10(5), 2012; RFC 8289)."""
_DECAY = 0.05
"""Weight of the newest request in what is typical."""
_LEAST_RETRY_S = 0.05
_MOST_RETRY_S = 5.0
_TOLD_EVERY_S = 10.0
"""An overload is a log line now and then; how many were refused is for the metrics to say."""


class Refusal(StrEnum):
    """Why a request was refused: `OverloadedError.reason`."""

    QUEUE_FULL = "QUEUE_FULL"
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """`running` and `waiting`: requests, the first at least 1. `patience`: how long one waits. `good_time`: what an
    answer should take; where it takes longer, fewer are worked on, but `least_running`."""

    running: int
    least_running: int
    waiting: int
    patience: StageBudget
    good_time: StageBudget


class Admission:
    """Lets requests in. For one event loop. `clock` gives seconds that never go back."""

    def __init__(
        self, policy: AdmissionPolicy, *, remaining_s: RemainingS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._policy = policy
        self._remaining_s = remaining_s
        self._clock = clock
        self._pace = Pace(policy.least_running, policy.running)
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._waiting_since = 0.0
        self._typical_s = 0.0
        self._told_at: float | None = None
        # Asked for when they are scraped, which is rarer than requests are.
        metrics.REQUESTS_PLACES.set_function(lambda: self._pace.places)
        metrics.REQUESTS_RUNNING.set_function(lambda: self._running)
        metrics.REQUESTS_WAITING.set_function(lambda: len(self._waiting))

    def refusal(self, method: str) -> OverloadedError | None:
        """What a request is refused with that nobody need read: `run` would refuse it at once."""
        return self._refused(method, Refusal.QUEUE_FULL) if self._full() else None

    async def run(self, method: str, call: Callable[[], Awaitable[T]]) -> T:
        """The result of `call`, once it was let in; `method` is whose refusals are counted.

        Raises `OverloadedError` where it was not, and what `call` raises.
        """
        if self._has_place():
            self._running += 1
        else:
            await self._wait(method)
        began = self._clock()
        good_s = self._good_s()
        try:
            result = await call()
        except (DeadlineError, asyncio.CancelledError):
            # An answer would have come later still. What fails in good time, or for other reasons, says how fast
            # something fails, not how fast requests are answered.
            if self._clock() - began > good_s:
                self._learn(began, good_s)
            raise
        else:
            self._learn(began, good_s)
            return result
        finally:
            self._leave()

    async def _wait(self, method: str) -> None:
        """Returns when another request has handed over its place."""
        if self._full():
            raise self._refused(method, Refusal.QUEUE_FULL)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._waiting_since = self._clock()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._policy.patience.timeout_s(self._remaining_s())):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                # Its turn came while it was given up.
                self._leave()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise self._refused(method, Refusal.QUEUE_TIMEOUT) from None
            raise

    def _leave(self) -> None:
        """Gives the place back, and lets in who may come."""
        self._running -= 1
        standing = self._clock() - self._waiting_since > _STANDING_S
        while self._waiting and self._running < self._pace.places:
            turn = self._waiting.pop() if standing else self._waiting.popleft()
            if not turn.done():
                self._running += 1
                turn.set_result(None)

    def _has_place(self) -> bool:
        return self._running < self._pace.places and not self._waiting

    def _full(self) -> bool:
        return not self._has_place() and sum(not turn.done() for turn in self._waiting) >= self._policy.waiting

    def _good_s(self) -> float:
        try:
            return self._policy.good_time.timeout_s(self._remaining_s())
        except DeadlineError:
            return 0.0

    def _learn(self, began: float, good_s: float) -> None:
        now = self._clock()
        self._typical_s += (_DECAY if self._typical_s else 1.0) * (now - began - self._typical_s)
        self._pace.answered(began, now, good_s, full=self._running >= self._pace.places)

    def _retry_after_s(self) -> float:
        """When those that are here now will have been answered, about."""
        if not self._typical_s:
            return DEFAULT_RETRY_AFTER_S
        rounds = 1 + len(self._waiting) / self._pace.places
        # In steps: nobody comes back to the millisecond, and what is alike is made once (`to_status`).
        steps = round(self._typical_s * rounds / _LEAST_RETRY_S)
        return min(max(steps * _LEAST_RETRY_S, _LEAST_RETRY_S), _MOST_RETRY_S)

    def _refused(self, method: str, reason: Refusal) -> OverloadedError:
        metrics.REQUESTS_REFUSED.labels(method, reason.value).inc()
        now = self._clock()
        if self._told_at is None or now - self._told_at >= _TOLD_EVERY_S:
            self._told_at = now
            _log.warning("overloaded", running=self._running, waiting=len(self._waiting), refusing=reason.value)
        return OverloadedError(
            "the gateway works on as many requests as it can and others wait; retry later, or add replicas",
            reason=reason.value,
            retry_after_s=self._retry_after_s(),
        )
