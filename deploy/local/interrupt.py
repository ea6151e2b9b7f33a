"""Ctrl-C and SIGTERM end a command wherever it is, and what it started with it.

A signal is raised where the program happens to be. Where that is a finaliser, Python prints the exception and goes
on, so whoever loops also asks: `check` raises what was swallowed.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """Somebody wants the command to end. `number` is the signal that said so."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


_asked: list[int] = []
_deferring: list[None] = []


def install() -> None:
    """Makes `SIGNALS` raise `Interrupted`; once a process, by its main thread."""
    for number in SIGNALS:
        signal.signal(number, _note)


def check() -> None:
    """Raises `Interrupted` if a signal has come. Not for clean-up, which a first signal must let finish."""
    if _asked:
        raise Interrupted(_asked[0])


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Lets a signal that comes meanwhile be raised at the end of the block: for steps that must not be torn apart."""
    before = len(_asked)
    _deferring.append(None)
    try:
        yield
    finally:
        _deferring.pop()
    if len(_asked) > before:
        raise Interrupted(_asked[before])


def _note(number: int, _frame: FrameType | None) -> None:
    _asked.append(number)
    if not _deferring:
        raise Interrupted(number)
