"""Two things measured in turns on one machine: A B A B …, so that what else the machine does hits both."""

import math
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


async def in_pairs(first: Measure, second: Measure, pairs: int, title: str) -> tuple[list[float], list[float]]:
    """As `in_turns`, for a difference smaller than what a machine drifts by in a round: A B, B A, A B …, so that
    neither is always the later one; to be compared pair by pair."""
    await first()
    await second()
    ours, theirs = [], []
    for at in track(range(pairs), description=title):
        for measure, results in [(first, ours), (second, theirs)][:: -1 if at % 2 else 1]:
            results.append(await measure())
    return ours, theirs


def pair_ratio(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Median over the pairs of the one by the other, and its standard error: √(π/2) times that of a mean, where the
    errors are normal and the pairs many."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), math.sqrt(math.pi / 2 / len(ratios)) * statistics.stdev(ratios)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Of the medians."""
    return statistics.median(ours) / statistics.median(theirs)
