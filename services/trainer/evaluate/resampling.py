"""How sure measures of relevance are, and whether two models differ in them: a bootstrap over queries, for the pairs of
one query stand or fall together."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.trainer.evaluate.statistics import CONFIDENCE, RESAMPLES

Values = Mapping[str, NDArray[np.float64]]
"""By measure, one value a resample."""

_WEIGHTS_AT_A_TIME = 500_000


@dataclass(frozen=True, slots=True)
class Interval:
    """Of one measure, `CONFIDENCE` wide."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Shift:
    """One model's measure minus another's, over the same judged pairs."""

    value: float
    low: float
    high: float
    p_value: float
    """Two-sided, of the same resamples for both. At least 1 / 1,000, and 2 / 2^queries where they are few."""


@dataclass(frozen=True)
class Judged:
    """Judged pairs as a model scores them, one value a pair."""

    queries: NDArray[np.intp]
    """0, 1, 2, …: which query the pair is of."""
    labels: NDArray[np.bool_]
    scores: NDArray[np.float64]
    threshold: float
    """Scores from here on say relevant. Every resample keeps it."""

    @property
    def count(self) -> int:
        """Queries."""
        return int(self.queries.max()) + 1


def resample(judged: Judged, seed: int = 0) -> Values:
    """The measures of `classify` for each of `RESAMPLES` draws of as many queries as there are, with replacement.

    The same seed and queries make the same draws, whatever the scores. Draws of one label alone are left out.
    """
    random = np.random.default_rng(seed)
    chances = np.full(judged.count, 1 / judged.count)
    step = max(1, _WEIGHTS_AT_A_TIME // len(judged.labels))
    parts = [
        weigh(judged, random.multinomial(judged.count, chances, size=min(step, RESAMPLES - start)))
        for start in range(0, RESAMPLES, step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def weigh(judged: Judged, draws: NDArray[np.int64]) -> Values:
    """The measures of `classify` where each query counts as often as a row of `draws` (draws, queries) says."""
    order = np.argsort(-judged.scores, kind="stable")
    scores, labels = judged.scores[order], judged.labels[order]
    weights = draws.T.astype(np.float64)[judged.queries[order]]
    shown, found = _sums(weights), _sums(weights * labels[:, None])
    both = (found[-1] > 0) & (found[-1] < shown[-1])
    shown, found = shown[:, both], found[:, both]

    pairs, positive = shown[-1], found[-1]
    at = int((scores >= judged.threshold).sum())
    said, hits = shown[at], found[at]

    # Pairs of one score come together: no order among them is the model's.
    steps = np.append(0, np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) + 1)
    holds = np.add.reduceat(labels, steps[:-1], dtype=np.intp) > 0
    before, after = steps[:-1][holds], steps[1:][holds]
    gained = found[after] - found[before]
    above = (shown[before] - found[before] + shown[after] - found[after]) / 2
    return {
        "accuracy": (pairs - said - positive + 2 * hits) / pairs,
        "precision": hits / np.maximum(said, 1),
        "recall": hits / positive,
        "f1": 2 * hits / (said + positive),
        "roc_auc": 1 - (gained * above).sum(0) / (positive * (pairs - positive)),
        "average_precision": (gained * found[after] / np.maximum(shown[after], 1)).sum(0) / positive,
    }


def interval(values: NDArray[np.float64]) -> Interval:
    """By percentiles."""
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def shift(value: float, ours: NDArray[np.float64], theirs: NDArray[np.float64], queries: int) -> Shift:
    """`value`: the difference over all queries; `ours`, `theirs`: of the same draws from so many `queries`.

    p is twice the share of draws on the other side of no difference (Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993, section 15.4), so that it falls below 0.05 where the interval leaves 0.
    """
    changes = ours - theirs
    beyond = min(int((changes <= 0).sum()), int((changes >= 0).sum()))
    chance = 2 * (beyond + 1) / (len(changes) + 1)
    held = interval(changes)
    # So few queries could all have gone one way by chance as often as this.
    return Shift(value, held.low, held.high, min(1.0, max(chance, 2.0 ** (1 - queries))))


def _sums(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(pairs + 1, draws): the weight of the first 0, 1, 2, … pairs."""
    return np.concatenate([np.zeros((1, weights.shape[1])), np.cumsum(weights, axis=0)])
