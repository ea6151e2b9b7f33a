"""Counts of the candidates by brand, category and price."""

import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING
from typing import Any, TypeAlias

from services.vector_retrieval import expressions, schema
from shared.items import MICROS_PER_UNIT

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "brand": ("brand",),
    "category_path": ("category",),
    "price": ("price", "currency"),
}
"""The fields that can be counted, and the columns that takes."""

DEFAULT_BOUNDS = (10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0)
DEFAULT_VALUES = 20
MAX_VALUES = 1_000
MAX_BOUNDS = 50
MAX_FACETS = 8


@dataclass(frozen=True, slots=True)
class Facet:
    """What to count: a key of `COLUMNS`. `bounds`, ascending, part the buckets of a price."""

    field: str
    bounds: tuple[float, ...] = DEFAULT_BOUNDS
    limit: int = DEFAULT_VALUES


@dataclass(frozen=True, slots=True, order=True)
class PriceBucket:
    """Prices of `currency` in `[at_least, less_than)`; the first bucket has no lower bound, the last no upper one."""

    currency: str
    at_least: float | None
    less_than: float | None


Value: TypeAlias = str | tuple[str, ...] | PriceBucket
"""A brand, a category path, or a range of prices."""
Counts: TypeAlias = list[tuple[Value, int]]


def count(rows: Sequence[Mapping[str, Any]], facet: Facet) -> Counts:
    """How many of `rows`, which have the columns of the facet, have each value: the most frequent first, of equals
    the smaller first; prices by currency, from low to high. Rows without a value count nowhere."""
    if facet.field == "price":
        return _by_price(rows, facet.bounds)
    if facet.field == "brand":
        values: Counter[Any] = Counter(row["brand"] for row in rows if row["brand"])
    else:
        paths = [schema.category_path(row["category"]) for row in rows]
        values = Counter(path[:level] for path in paths for level in range(1, len(path) + 1))
    ranked = sorted(values.items(), key=lambda counted: (-counted[1], counted[0]))
    return ranked[: facet.limit]


def _by_price(rows: Sequence[Mapping[str, Any]], bounds: Sequence[float]) -> Counts:
    # As a filter `at_least` the bound has it.
    limits = [expressions.scaled(bound, MICROS_PER_UNIT, ROUND_CEILING) for bound in bounds]
    counted = Counter((row["currency"], bisect.bisect_right(limits, row["price"])) for row in rows if row["price"] >= 0)
    edges = [None, *bounds, None]
    return [
        (PriceBucket(currency, edges[place], edges[place + 1]), counted[currency, place])
        for currency, place in sorted(counted)
    ]
