"""The rows of part "retrieval" about filters: of what meets one, is the nearest found, and as much as was asked for?"""

from collections.abc import Awaitable, Callable

import numpy as np
import numpy.typing as npt
from aisle.catalog.v1 import filter_pb2

from shared.items import MICROS_PER_UNIT
from tests.benchmarks import vectors
from tests.benchmarks.bench import Measured, Row
from tests.benchmarks.figures import Goal
from tests.benchmarks.indexes import Index
from tests.benchmarks.shops import Shops
from tests.benchmarks.vectors import Vectors

SHARES = (1, 10, 50)
"""Percent of the items that a filter lets through: prices are drawn from 0 to 100 (`corpora`)."""
HITS = (10, 100)
QUERIES = 200


def under_filters(home: str) -> Callable[[Shops], Awaitable[list[Measured]]]:
    """Measures on `home`."""

    async def measure(bench: Shops) -> list[Measured]:
        index, asked = await bench.on(home), await bench.asked(QUERIES)
        prices = np.array([item.price.micros if item.price else -1 for item in bench.titles().items[: bench.size]])
        recalls: dict[int, dict[int, float]] = {hits: {} for hits in HITS}
        short = 0
        for share in SHARES:
            matching = np.flatnonzero((prices >= 0) & (prices < share * MICROS_PER_UNIT))
            for hits in HITS:
                recalls[hits][share], lacking = await _measured(index, asked, matching, share, hits)
                short += lacking
        results = [Measured(min(found.values()), {"recall": found}, _told(found)) for found in recalls.values()]
        note = f"of {len(asked) * len(SHARES) * len(HITS):,} filtered searches for {HITS[0]} and {HITS[1]} hits"
        return [*results, Measured(short, {}, note)]

    return measure


async def _measured(
    index: Index, asked: Vectors, matching: npt.NDArray[np.intp], share: int, hits: int
) -> tuple[float, int]:
    """Recall, and how many answers were shorter than they could have been."""
    below = filter_pb2.Filter(range=filter_pb2.RangeCondition(field="price", less_than=share))
    found = index.positions(await index.search(asked, hits, below))
    # A hit that does not meet the filter has no place, and ends the row.
    place = {int(position): at for at, position in enumerate(matching)}
    among = [[place[position] for position in one] for one in found]
    short = sum(len(one) < min(hits, len(matching)) for one in found)
    return vectors.recall(index.vectors[matching], asked, among, hits), short


def _told(found: dict[int, float]) -> str:
    shares = ", ".join(f"{share} %: {value:.3f}" for share, value in found.items())
    return f"by share of the items that a price filter lets through, {shares}; the least counts"


def _row(home: str) -> Row[Shops]:
    goals = (
        *(Goal(f"recall@{hits} under filters, {home}", 0.95) for hits in HITS),
        Goal(f"filtered answers with fewer hits than exist, {home}", 0, "lower", "answers"),
    )
    return Row(goals, under_filters(home))


ROWS: dict[str, Row[Shops]] = {f"filters-{home}": _row(home) for home in ("server", "lite")}
