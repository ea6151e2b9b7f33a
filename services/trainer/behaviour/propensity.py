"""How likely a place of the list is to be looked at, learnt from the log.

The position-based model: an item is taken from place k for a query with chance θ_k · γ, where θ is how likely the place
is looked at (its propensity) and γ how well the item answers (Richardson et al. 2007). An item that stood at several
places for one query is its own control, and rankings change by themselves: with models, stock, who asks, exploration
(intervention harvesting: Agarwal et al., "Estimating position bias without intrusive interventions", WSDM 2019).

θ is found by Poisson pseudo-maximum likelihood with a fixed effect for each pair of query and item: given how often a
pair was taken in all, the places share that as shown_k · θ_k (Hausman, Hall & Griliches 1984; consistent whatever the
distribution of the counts, however few times a pair was shown: Wooldridge 1999). Expectation maximisation of the same
model (Wang et al., WSDM 2018, without its regression) has to guess γ of each pair, and errs where pairs were shown a
few times only, as most are: a test compares both.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import minimize

from services.trainer.behaviour.places import PLACES
from services.trainer.errors import TooLittleError
from services.trainer.prepare.judgements import KEY

LEAST_TAKEN = 200
"""Times that items which stood at several places were taken, below which a log cannot tell: with ten places, each
propensity would err by a quarter or more."""
_SMOOTHING = 1.0
"""Weight of the squared step between two places' log θ: as if one act more had been seen there. Nothing where a log
says something; where it says little, the neighbour's value."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Propensities:
    """`values` by place, from 0; the largest is 1, since only ratios can be learnt from clicks, or matter."""

    values: Floats
    learnt: int
    """How many of them, from the first on, the log says something of; the others are as the last of these."""
    taken: int
    """Times taken that they were learnt from; 0 where they were assumed."""


def assumed(bias: float) -> Propensities:
    """1 / (place from 1)^`bias`, as simulations of the literature have it (Joachims et al., WSDM 2017)."""
    return Propensities((1.0 + np.arange(PLACES)) ** -bias, 0, 0)


def informative(places: pl.DataFrame) -> pl.DataFrame:
    """The rows of `places.count` that say something of propensities: of items that were taken and stood at more than
    one place for the query. Columns pair, place, shown and taken."""
    of_pair = pl.struct(KEY, "item_id")
    return (
        places.with_columns(of_pair.hash().alias("pair"))
        .filter((pl.col("taken").sum().over("pair") > 0) & (pl.len().over("pair") > 1))
        .select("pair", "place", "shown", "taken")
    )


def estimate(rows: pl.DataFrame) -> Propensities:
    """From all rows that are `informative`. Raises `TooLittleError` where they are too few."""
    total = int(rows["taken"].sum())
    if total < LEAST_TAKEN:
        raise TooLittleError(
            f"the log cannot tell how likely each place is looked at: items that stood at several places for one query "
            f"were taken {total:,} times, and {LEAST_TAKEN:,} are needed. Wait for more, or say --position-bias 1 (the "
            "second place is seen half as often as the first) or 0 (no correction)"
        )
    _, pair = np.unique(rows["pair"].to_numpy(), return_inverse=True)
    known, place = np.unique(rows["place"].to_numpy(), return_inverse=True)
    shown, taken = (rows[name].to_numpy().astype(np.float64) for name in ("shown", "taken"))
    of_pair, of_place = np.bincount(pair, taken), np.bincount(place, taken)

    def loss(free: Floats) -> tuple[float, Floats]:
        """Negative log-likelihood by log θ of all known places but the first, and its gradient."""
        logs = np.concatenate([[0.0], free])
        expected = shown * np.exp(logs)[place]
        whole = np.bincount(pair, expected)
        share = np.bincount(place, expected * (of_pair / whole)[pair])
        steps = np.diff(logs)
        pull = np.concatenate([[0.0], steps]) - np.concatenate([steps, [0.0]])
        value = of_pair @ np.log(whole) - of_place @ logs + _SMOOTHING / 2 * steps @ steps
        return float(value), (share - of_place + _SMOOTHING * pull)[1:]

    found = minimize(loss, np.zeros(len(known) - 1), jac=True, method="L-BFGS-B")
    learnt = np.exp(np.concatenate([[0.0], found.x]))
    # A place that the log says nothing of is taken for the one before it.
    before = np.searchsorted(known, np.arange(PLACES), side="right") - 1
    return Propensities((learnt / learnt.max())[np.maximum(before, 0)], int(known[-1]) + 1, total)
