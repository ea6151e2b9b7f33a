"""When long work shows a bar."""

import sys
from typing import Any

from tqdm import tqdm

_LONG_ROWS = 2_000
"""Some seconds of a CPU."""


def shown(rows: int) -> bool:
    """Whether encoding or scoring so many rows is to show how far it is: where it is long, and somebody looks."""
    return rows >= _LONG_ROWS and sys.stderr.isatty()


def bar(rows: int, done: int) -> Any:
    """A bar of tqdm that begins at `done`: its rate and the time left are those of the rest."""
    return tqdm(total=rows, initial=done, unit="row", disable=not shown(rows), leave=False)
