"""Is the batch thread getting on with its work? The answer is what `grpc.health.v1` tells the world."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether new work would be answered, and if not, why."""

    ok: bool
    reason: str = ""


HEALTHY = Health(ok=True)


class Watchdog:
    """Tells a stalled thread from an idle one, and from one that is merely slow.

    The watched thread calls `begin` before and `end` after each step; anyone may ask `check` at any time.
    """

    def __init__(self, stall_after_s: float) -> None:
        self.stall_after_s = stall_after_s
        # One attribute, so that readers in other threads never see half of a change.
        self._state: tuple[bool, float] = (False, 0.0)

    def begin(self, now: float) -> None:
        """A step starts."""
        self._state = (True, now)

    def end(self, now: float) -> None:
        """It is over."""
        self._state = (False, now)

    def check(self, now: float, oldest_wait_s: float) -> Health:
        """`oldest_wait_s`: how long the queue has held work continuously; 0 when it is empty."""
        running, since = self._state
        if running and now - since > self.stall_after_s:
            return Health(ok=False, reason=f"a forward pass has been running for {now - since:.1f} s")
        if not running and min(oldest_wait_s, now - since) > self.stall_after_s:
            return Health(ok=False, reason=f"queued work has not been taken for {oldest_wait_s:.1f} s")
        return HEALTHY


async def watch(read: Callable[[], Health], tell: Callable[[Health], None], interval_s: float) -> None:
    """Call `tell` at each change of `ok`, until cancelled. What `tell` raises is logged and changes nothing."""
    last = read()
    while True:
        await asyncio.sleep(interval_s)
        health = read()
        if health.ok == last.ok:
            continue
        last = health
        log.warning("engine health: %s", "recovered" if health.ok else health.reason)
        try:
            tell(health)
        except Exception:
            log.exception("a health listener failed")
