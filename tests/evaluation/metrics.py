"""How good lists are: accuracy by `ir_measures`, and what it does not have (coverage, novelty, intervals)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG
from numpy.typing import NDArray

from tests.evaluation.datasets.interactions import Fold

DEPTH = 100
"""Lists are cut here: the longest page that the gateway gives."""
SHOWN = 10
"""What a shopper sees; coverage and novelty are of these."""
ACCURACY = {"recall@10": R @ 10, "recall@20": R @ 20, "ndcg@10": nDCG @ 10, "mrr": RR @ DEPTH}
"""Ranked among all candidates, never among a sample of them (Krichene and Rendle, 2020)."""
RESAMPLES = 1_000

Lists = Mapping[int, Sequence[int]]
"""Items, best first, by user."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over users, and where it would lie in 95 of 100 other draws of users."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Scores:
    """The scores of one method on one fold: one value a user of `fold.users`, and two for all lists together."""

    by_user: Mapping[str, NDArray[np.float64]]
    coverage: float
    """Share of the candidates that somebody is shown."""
    novelty: float
    """Mean self-information of what is shown, in bits: -log2 of the share of users who took it before."""

    def interval(self, measure: str) -> Interval:
        """The mean of `measure` over users, with its bootstrap interval."""
        return bootstrap(self.by_user[measure])

    def as_json(self) -> dict[str, Any]:
        """Everything, without the single users."""
        means = {name: self.interval(name) for name in self.by_user}
        told = {name: {"mean": one.mean, "low": one.low, "high": one.high} for name, one in means.items()}
        return {**told, "coverage@10": self.coverage, "novelty@10": self.novelty}


def score(fold: Fold, lists: Lists) -> Scores:
    """Scores the lists of all users of `fold`; whoever has none scored nothing."""
    qrels = {str(user): {str(item): 1 for item in items} for user, items in fold.truth.items()}
    # The library orders by score, and would break ties by name.
    run = {
        str(user): {str(item): float(DEPTH - rank) for rank, item in enumerate(lists.get(user, ())[:DEPTH])}
        for user in fold.truth
    }
    at = {str(user): row for row, user in enumerate(fold.users.tolist())}
    by_user = {name: np.zeros(len(at)) for name in ACCURACY}
    names = {measure: name for name, measure in ACCURACY.items()}
    for value in ir_measures.iter_calc(list(names), qrels, run):
        by_user[names[value.measure]][at[value.query_id]] = value.value
    return Scores(by_user, _coverage(fold, lists), _novelty(fold, lists))


def mean_of(runs: Sequence[Scores]) -> Scores:
    """One method under several seeds: each user's mean over them."""
    by_user = {name: np.mean([run.by_user[name] for run in runs], axis=0) for name in runs[0].by_user}
    return Scores(
        by_user,
        float(np.mean([run.coverage for run in runs])),
        float(np.mean([run.novelty for run in runs])),
    )


def bootstrap(values: NDArray[np.float64], seed: int = 0) -> Interval:
    """The percentile interval of the mean over users."""
    drawn = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), (2.5, 97.5))
    return Interval(float(values.mean()), float(low), float(high))


def _shown(lists: Lists) -> Iterable[int]:
    return (item for items in lists.values() for item in items[:SHOWN])


def _coverage(fold: Fold, lists: Lists) -> float:
    return len(set(_shown(lists))) / len(fold.candidates)


def _novelty(fold: Fold, lists: Lists) -> float:
    takers = np.asarray(fold.taken.sum(axis=0)).ravel()
    # One more of each, so that an item nobody took before is as new as can be said, not infinitely so.
    bits = -np.log2((takers + 1) / (fold.n_users + 1))
    shown = list(_shown(lists))
    return float(bits[shown].mean()) if shown else 0.0
