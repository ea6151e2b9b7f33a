"""Two things measured in turns on one machine: A B A B …, so that what else the machine does hits both."""

import statistics
from collections.abc import Awaitable, Callable

from rich.progress import track

Measure = Callable[[], Awaitable[float]]


async def in_turns(first: Measure, second: Measure, rounds: int, title: str) -> tuple[list[float], list[float]]:
    """`rounds` results of each, after one of each that is not counted."""
    await first()
    await second()
    ours, theirs = [], []
    for _ in track(range(rounds), description=title):
        ours.append(await first())
        theirs.append(await second())
    return ours, theirs


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Of the medians."""
    return statistics.median(ours) / statistics.median(theirs)
