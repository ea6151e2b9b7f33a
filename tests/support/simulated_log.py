"""A behaviour log of shoppers who do what the position-based model says, so that what is learnt from it can be
compared with what is true."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.trainer.behaviour.archive import SCHEMA

START_US = 1_767_225_600 * 1_000_000
"""2026-01-01."""
DAY_US = 86_400 * 1_000_000

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class Shop:
    """What is true of a made-up shop. Several rankings take turns, as models do; each orders by how well items answer,
    and is wrong in its own way."""

    queries: int = 300
    candidates: int = 30
    """Items that may be shown for a query; `shown` of them are."""
    shown: int = 10
    users: int = 5_000
    rankings: int = 3
    bias: float = 1.0
    """A place is looked at with chance 1 / (place from 1)^this."""
    wrong: float = 1.0
    """How wrong rankings are: the deviation of their error, in units of four relevances."""
    days: float = 30.0
    seed: int = 0
    propensities: Floats = field(init=False)
    relevance: Floats = field(init=False)
    """Chance that who sees the item takes it, by query and item."""

    def __post_init__(self) -> None:
        draw = np.random.default_rng(self.seed)
        self.propensities = (1.0 + np.arange(self.shown)) ** -self.bias
        self.relevance = draw.beta(0.6, 2.5, (self.queries, self.candidates))
        error = draw.normal(0, self.wrong, (self.rankings, self.queries, self.candidates))
        self._orders = np.argsort(-(4 * self.relevance + error), axis=2)[:, :, : self.shown]
        self._names = np.array([self.item_id(q, i) for q in range(self.queries) for i in range(self.candidates)])
        popularity = 1 / np.arange(1, self.queries + 1) ** 0.8
        self._popularity = popularity / popularity.sum()

    def item_id(self, query: int, item: int) -> str:
        return f"i{query}-{item}"

    def relevance_of(self, item_id: str) -> float:
        query, item = item_id.removeprefix("i").split("-")
        return float(self.relevance[int(query), int(item)])

    def log(self, pages: int, at_once: int = 20_000) -> Iterator[pa.Table]:
        """The events of `pages` pages, in the order of time: each page, and what was taken from it."""
        draw = np.random.default_rng(self.seed + 1)
        for first in range(0, pages, at_once):
            numbers = np.arange(first, min(pages, first + at_once))
            yield self._events(numbers, START_US + (numbers * self.days * DAY_US / pages).astype(np.int64), draw)

    def _events(self, numbers: Ints, times: Ints, draw: np.random.Generator) -> pa.Table:
        queries = draw.choice(self.queries, len(numbers), p=self._popularity)
        users = draw.integers(0, self.users, len(numbers))
        shown = self._orders[draw.integers(0, self.rankings, len(numbers)), queries]
        taken = draw.random(shown.shape) < self.propensities * self.relevance[queries[:, None], shown]
        page, place = np.nonzero(taken)
        bought = draw.random(len(page))
        kinds = np.array(["CLICK", "ADD_TO_CART", "PURCHASE"])
        kind = kinds[(bought < 0.2).astype(int) + (bought < 0.08)]
        # Whoever buys has clicked.
        more = kind != "CLICK"
        page_of = np.concatenate([page, page[more]])
        place_of = np.concatenate([place, place[more]])
        kind_of = np.concatenate([np.full(len(page), "CLICK"), kind[more]])
        count, acts = len(numbers), len(page_of)
        ids = (queries[:, None] * self.candidates + shown).ravel()
        everyone = np.concatenate([np.arange(count), page_of])
        order = np.argsort(np.concatenate([times, times[page_of] + 10_000_000 * (1 + place_of)]), kind="stable")
        at = np.concatenate([times, times[page_of] + 10_000_000 * (1 + place_of)])
        item_ids = pa.ListArray.from_arrays(
            np.concatenate([np.arange(0, count + 1) * self.shown, np.full(acts, count * self.shown)]).astype(np.int32),
            pa.array(self._names[ids]),
        )
        nothing = pa.nulls(count, pa.string())
        request = np.char.add("r", numbers.astype(str))
        columns = {
            "type": pa.array(np.concatenate([np.full(count, "IMPRESSION"), kind_of])),
            "occurred_at": pa.array(at, pa.timestamp("us", "UTC")),
            "arrived_at": pa.array(at, pa.timestamp("us", "UTC")),
            "user_key": pa.array(np.char.add("u", users.astype(str)).astype("S")[everyone], pa.binary()),
            "session_key": pa.nulls(count + acts, pa.binary()),
            "item_id": pa.concat_arrays([nothing, pa.array(self._names[ids.reshape(shown.shape)[page_of, place_of]])]),
            "item_ids": item_ids,
            "first_position": pa.array(np.zeros(count + acts, np.int32)),
            "request_id": pa.array(request[everyone]),
            "surface": pa.array(np.full(count + acts, "SEARCH")),
            "query": pa.array(np.char.add("query ", queries.astype(str))[everyone]),
            "position": pa.concat_arrays([pa.nulls(count, pa.int32()), pa.array(place_of.astype(np.int32))]),
        }
        return pa.table(columns, schema=SCHEMA).take(pa.array(order))
