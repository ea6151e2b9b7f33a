"""Shops to search: items, and where people judged them, the queries and their grades."""

import csv
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from shared.catalogue.generator import generate
from shared.items import MAX_TITLE_CHARS, MICROS_PER_UNIT, Item, Money
from tests.benchmarks import texts

Grades = Mapping[str, Mapping[str, float]]
"""Query → item id → grade."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A catalogue. `real` says what it is."""

    name: str
    items: list[Item]
    real: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A catalogue with queries whose hits were graded by people. `lowest` is the grade that is worth nothing."""

    corpus: Corpus
    grades: Grades
    lowest: float

    def gain(self, query: str, item_id: str) -> float:
        """What a hit is worth: 2^(grade - lowest) - 1; nothing where nobody judged it."""
        grade = self.grades[query].get(item_id)
        return 0.0 if grade is None else float(2.0 ** (grade - self.lowest) - 1)


class MissingDataError(Exception):
    """Data that a row needs are not on this machine; the message says which."""


def priced_titles(count: int) -> Corpus:
    """`count` titles or more of a home improvement shop, of the bundled one where that is not at hand.

    Prices are drawn from 0 to 100 whatever the item: a bound of 10 lets through a tenth of them.
    """
    path = texts.DATA / "home_depot" / "products.parquet"
    if path.is_file():
        found, real = _home_depot_items(path), "Home Depot titles"
    else:
        found, real = [Item(id=item.id, title=item.title) for item in generate(count)], "the bundled shop's titles"
    draw = random.Random(7)
    priced = [replace(item, price=Money("USD", round(draw.random() * 100 * MICROS_PER_UNIT))) for item in found]
    return Corpus("titles", priced, real)


def home_depot(split: str) -> Judged:
    """Home Depot's titles, with the queries of `train`, `valid` or `test`."""
    items = _home_depot_items(_needed("home_depot", "products.parquet"))
    grades = _grades(_needed("home_depot", f"qrels_{split}.csv"))
    return Judged(Corpus("home_depot", items, "Home Depot titles"), grades, lowest=1.0)


def icecat() -> Judged:
    """Icecat's items: title and short description."""
    table = pq.read_table(_needed("icecat", "products.parquet"), columns=["id", "title", "short_description"])
    items = [
        Item(id=row["id"], title=row["title"][:MAX_TITLE_CHARS], description=row["short_description"] or "")
        for row in table.to_pylist()
    ]
    return Judged(Corpus("icecat", items, "Icecat items"), _grades(_needed("icecat", "qrels.csv")), lowest=0.0)


def _home_depot_items(path: Path) -> list[Item]:
    return [Item(id=row["id"], title=row["title"][:MAX_TITLE_CHARS]) for row in pq.read_table(path).to_pylist()]


def _grades(path: Path) -> Grades:
    found: dict[str, dict[str, float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["query"], {})[row["item_id"]] = float(row["grade"])
    return found


def _needed(*parts: str) -> Path:
    path = texts.DATA.joinpath(*parts)
    if not path.is_file():
        raise MissingDataError(f"../shared/data/{'/'.join(parts)} is not there")
    return path
