"""How far a job is: a bar on a terminal, a line now and then elsewhere."""

import time
from typing import TextIO

_BAR = 30
_TERMINAL_S = 0.2
_LOG_S = 10.0


class Progress:
    """Writes to `out`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._total = 0
        self._before = 0
        self._done = 0
        self._began = time.monotonic()
        self._shown = -_LOG_S
        self._drawn = False

    def begin(self, total: int, done: int) -> None:
        """Of `total` items, `done` were done by an earlier run."""
        self._total = total
        self._before = self._done = done
        self._began = time.monotonic()

    def advance(self, items: int) -> None:
        """`items` more are done."""
        self._done += items
        now = time.monotonic()
        if now - self._shown < (_TERMINAL_S if self._out.isatty() else _LOG_S):
            return
        self._shown = now
        text = self._text(now)
        if self._out.isatty():
            self._out.write(f"\r\x1b[K{text}")
            self._drawn = True
        else:
            self._out.write(f"{text}\n")
        self._out.flush()

    def say(self, message: str) -> None:
        """A line of its own."""
        if self._drawn:
            self._out.write("\n")
            self._drawn = False
        self._out.write(f"{message}\n")
        self._out.flush()

    def _text(self, now: float) -> str:
        # Writes meanwhile are brought over too, so there may be more than there were.
        total = max(self._total, self._done, 1)
        filled = _BAR * self._done // total
        rate = (self._done - self._before) / max(now - self._began, 1e-9)
        left = (total - self._done) / rate if rate else 0.0
        return (
            f"[{'#' * filled}{'.' * (_BAR - filled)}] {self._done:,} of {total:,} items, {rate:,.0f}/s, "
            f"{int(left) // 60}:{int(left) % 60:02} left"
        )
