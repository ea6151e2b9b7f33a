"""How sure a mean over queries is, and whether two models differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 2_000
"""Enough that the ends of a 95 % interval stand still to about a twentieth of its width."""
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval, `CONFIDENCE` wide."""

    mean: float
    low: float
    high: float
    queries: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One model minus another, over the same queries."""

    mean: float
    low: float
    high: float
    p_value: float
    """Of a two-sided paired randomisation test: how often chance alone differs as much."""
    wins: int
    """Queries where the first is better."""
    losses: int


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of one value a query, with a percentile bootstrap interval. One value or none has no interval."""
    array = np.asarray(values, np.float64)
    mean = float(array.mean()) if len(array) else float("nan")
    low, high = _interval(array, seed)
    return Estimate(mean, low, high, len(array))


def compare(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> Difference:
    """Paired: the i-th values are of the same query.

    Randomisation test (Smucker, Allan and Carterette, "A Comparison of Statistical Significance Tests for
    Information Retrieval Evaluation", CIKM 2007). The least p it can give is 1 / 10,000; of one query or none it is 1.
    """
    differences = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    low, high = _interval(differences, seed)
    return Difference(
        mean=float(differences.mean()) if len(differences) else float("nan"),
        low=low,
        high=high,
        p_value=_p_value(differences, seed),
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
    )


def _interval(array: np.ndarray, seed: int) -> tuple[float, float]:
    if len(array) < 2 or np.ptp(array) == 0:
        mean = float(array.mean()) if len(array) else float("nan")
        return mean, mean
    found = stats.bootstrap(
        (array,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=100,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _p_value(differences: np.ndarray, seed: int) -> float:
    if len(differences) < 2 or not np.any(differences):
        return 1.0
    found = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=9_999,
        batch=500,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)
