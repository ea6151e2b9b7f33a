"""How many requests are worked on at once: as many as are answered in good time.

Additive increase, multiplicative decrease, as in TCP's congestion avoidance (Chiu & Jain 1989; Jacobson 1988): where
all places are taken and an answer came in good time, there is place for a little more; where it came late, for less.
So the number follows what is behind the gateway, replicas that come and go included, without anybody setting it.
"""

_DECREASE = 0.9


class Pace:
    """Between `least` and `most` requests; begins at `most`."""

    def __init__(self, least: int, most: int) -> None:
        self._least = min(least, most)
        self._most = most
        self._places = float(most)
        self._slower_at = float("-inf")

    @property
    def places(self) -> int:
        """Requests that may be worked on now."""
        return int(self._places)

    def answered(self, began: float, now: float, good_s: float, *, full: bool) -> None:
        """A request let in at `began` (seconds) was answered at `now`; `good_s` would have been good time. `full`: all
        places were taken."""
        if now - began <= good_s:
            if full:
                self._places = min(self._places + 1 / self._places, self._most)
        elif began >= self._slower_at:
            # Those that were let in before the last decrease say nothing of what came of it.
            self._slower_at = now
            self._places = max(self._places * _DECREASE, self._least)
