"""When long work shows a bar."""

import sys

_LONG_ROWS = 2_000
"""Some seconds of a CPU."""


def shown(rows: int) -> bool:
    """Whether encoding or scoring so many rows is to show how far it is: where it is long, and somebody looks."""
    return rows >= _LONG_ROWS and sys.stderr.isatty()
