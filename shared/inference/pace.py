"""How fast this process has been lately: what hints to callers and the size of a bulk batch are based on."""

DECAY = 0.1
"""Weight of the newest batch."""
LEAST_RETRY_S = 0.05
MOST_RETRY_S = 5.0


class Pace:
    """Seconds per token, smoothed, and the shortest forward pass ever seen.

    Written by the batch thread and read by others: single attributes, each consistent by itself.
    """

    def __init__(self) -> None:
        self._seconds_per_token = 0.0
        self._least_s = 0.0

    @property
    def least_s(self) -> float:
        """Duration of the shortest forward pass so far; 0 before the first.

        The only duration that work may be refused on: it can only fall, so one slow batch cannot make the
        process refuse everything for ever after.
        """
        return self._least_s

    def record(self, tokens: int, seconds: float) -> None:
        """One finished forward pass."""
        self._least_s = min(self._least_s, seconds) if self._least_s else seconds
        pace = seconds / max(tokens, 1)
        known = self._seconds_per_token
        self._seconds_per_token = known + DECAY * (pace - known) if known else pace

    def tokens_in(self, seconds: float) -> int | None:
        """How many tokens are served in `seconds`; None before the first batch."""
        return max(1, int(seconds / self._seconds_per_token)) if self._seconds_per_token else None

    def retry_after_s(self, tokens_ahead: int, default: float) -> float:
        """When a refused caller should come back: about when half of what waits now will have been served."""
        if not self._seconds_per_token:
            return default
        return min(max(tokens_ahead * self._seconds_per_token / 2, LEAST_RETRY_S), MOST_RETRY_S)
