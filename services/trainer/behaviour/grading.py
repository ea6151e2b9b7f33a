"""What the log says of each pair of query and item, as a grade.

The value of a pair is what a shopper who sees it does with it: weight of the act (`shared.behaviour`), 0 for none.
Each time shown, weight / θ is an unbiased estimate of it (inverse propensity: Joachims et al., WSDM 2017), with a
variance in proportion to 1 / θ. Averaged by the inverse of their variances, which is θ, they come to Σ weight / Σ θ:
what was taken by how often the item was seen. Towards the shop's average by `least_seen` times seen.
"""

import numpy as np
import polars as pl

from services.trainer.behaviour.propensity import Propensities
from services.trainer.prepare.judgements import KEY
from services.trainer.prepared import Grades

_ROUNDING = 1e-9
"""So that the very value that `top` is has the highest grade."""


def seen(places: pl.DataFrame, propensities: Propensities, clip: float) -> pl.DataFrame:
    """One row a pair: key, query, item_id, seen (times), weight (summed). `places`: see `places.count`."""
    chances = pl.Series(np.maximum(propensities.values, clip))
    return places.group_by(KEY, "query", "item_id", maintain_order=True).agg(
        (pl.col("shown") * pl.lit(chances).gather(pl.col("place"))).sum().alias("seen"), pl.col("weight").sum()
    )


def value(average: float, least_seen: float) -> pl.Expr:
    """Of the pairs of `seen`, in weights of `shared.behaviour` for each time seen."""
    return ((pl.col("weight") + least_seen * average) / (pl.col("seen") + least_seen)).alias("value")


def top_value(values: pl.Series, top_share: float) -> float:
    """The value from which on a pair has the highest grade: that of the best `top_share` of all pairs."""
    return float(values.quantile(1 - top_share, "linear") or 0.0)


def grade(top: float, grades: Grades) -> pl.Expr:
    """Of pairs with a value: the highest from `top` on, and below it the one whose gain (see `Grades.gain`) stands to
    the highest one's as the value to `top`, at least.

    In whole steps from the lowest, as people give grades: a log that has grown a little then changes few of them,
    and it is changes that `retrain` takes for news.
    """
    if top <= 0:
        return pl.lit(grades.lowest).alias("grade")
    gain = grades.gain(grades.highest) * pl.col("value") / top
    step = (1 + gain + _ROUNDING).log(2).floor()
    return (grades.lowest + step).clip(upper_bound=grades.highest).alias("grade")
