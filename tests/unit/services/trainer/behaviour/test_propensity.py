"""What is learnt from a log of shoppers whose bias is known."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from services.trainer.behaviour import by_query, grading, places
from services.trainer.behaviour.options import BehaviourOptions
from services.trainer.behaviour.places import PLACES
from services.trainer.behaviour.propensity import Floats, Propensities, assumed, estimate, informative
from services.trainer.behaviour.visits import implausible
from services.trainer.errors import JobError
from tests.support.logged import frame
from tests.support.simulated_log import Shop


def counted(shop: Shop, pages: int) -> pl.DataFrame:
    """The counts of a log of `shop`, without the way over files."""
    nobody = implausible(frame().lazy(), BehaviourOptions(Path()))
    nothing = by_query.undone(frame().lazy())
    events = (by_query._flagged(pl.DataFrame(table), nobody, nothing) for table in shop.log(pages))
    return places.count(by_query._rows(pl.concat(events), 1), 0, Counter())


def error(found: Floats, shop: Shop) -> float:
    """Mean error of log θ: 0.1 is ten per cent."""
    return float(np.abs(np.log(found[: shop.shown] / shop.propensities)).mean())


@pytest.mark.parametrize("bias", [0.0, 0.5, 1.0, 1.5])
def test_propensities_are_found_within_a_tenth(bias: float) -> None:
    shop = Shop(bias=bias)
    found = estimate(informative(counted(shop, 30_000)))
    assert error(found.values, shop) < 0.1
    assert found.learnt == shop.shown
    assert set(found.values[shop.shown :]) == {found.values[shop.shown - 1]}


def test_little_is_enough_where_expectation_maximisation_errs() -> None:
    shop = Shop()
    counts = counted(shop, 3_000)
    found = error(estimate(informative(counts)).values, shop)
    assert found < 0.2
    assert found < error(_expectation_maximisation(counts), shop) / 2


def _expectation_maximisation(counts: pl.DataFrame) -> Floats:
    """Of the position-based model, with a relevance for each pair (Wang et al. 2018, without the regression)."""
    _, pair = np.unique(counts.select(pl.struct("key", "item_id").hash()).to_series().to_numpy(), return_inverse=True)
    place, shown, taken = (counts[name].to_numpy().astype(float) for name in ("place", "shown", "taken"))
    place = place.astype(int)
    theta, gamma = np.full(place.max() + 1, 0.9), np.full(pair.max() + 1, 0.3)
    for _ in range(200):
        looked, good = theta[place], gamma[pair]
        neither = np.maximum(1 - looked * good, 1e-9)
        theta = np.bincount(place, taken + (shown - taken) * looked * (1 - good) / neither) / np.bincount(place, shown)
        gamma = np.bincount(pair, taken + (shown - taken) * good * (1 - looked) / neither) / np.bincount(pair, shown)
    found: Floats = theta / theta.max()
    return found


def test_items_are_ordered_better_than_by_click_through() -> None:
    shop = Shop(wrong=3.0)
    counts = counted(shop, 30_000)
    propensities = estimate(informative(counts))
    by_value = _order(shop, grading.seen(counts, propensities, 0.05), grading.value(0.5, 10))
    raw = counts.group_by("key", "query", "item_id").agg(pl.col("shown", "taken").sum())
    by_rate = _order(shop, raw, (pl.col("taken") / pl.col("shown")).alias("value"))
    # Of pairs of items of one query, the share that stand in the right order.
    assert by_value > by_rate + 0.05
    assert by_value > 0.75


def _order(shop: Shop, pairs: pl.DataFrame, value: pl.Expr) -> float:
    right = every = 0
    for _, rows in pairs.with_columns(value).group_by("key"):
        truth = np.array([shop.relevance_of(item) for item in rows["item_id"]])
        values = rows["value"].to_numpy()
        apart = truth[:, None] - truth[None, :] > 0.1
        right += int((apart & (values[:, None] > values[None, :])).sum())
        every += int(apart.sum())
    return right / every


def test_a_log_without_movement_cannot_tell() -> None:
    counts = counted(Shop(rankings=1), 3_000)
    with pytest.raises(JobError, match=r"taken 0 times, and 200 are needed.*--position-bias"):
        estimate(informative(counts))


def test_items_that_nobody_took_or_that_never_moved_say_nothing() -> None:
    rows = [("a", 0, 5, 1), ("a", 3, 5, 0), ("b", 0, 9, 0), ("b", 1, 9, 0), ("c", 2, 9, 4)]
    table = pl.DataFrame(rows, schema=["item_id", "place", "shown", "taken"], orient="row")
    found = informative(table.with_columns(pl.lit("lamp").alias("key")))
    assert found.select("place", "shown", "taken").rows() == [(0, 5, 1), (3, 5, 0)]


def test_places_between_known_ones_are_as_the_one_before() -> None:
    table = pl.DataFrame({"pair": [1, 1], "place": [0, 4], "shown": [1_000, 1_000], "taken": [400, 100]})
    found = estimate(table)
    assert found.learnt == 5
    assert found.values[:4].tolist() == [1.0] * 4
    assert found.values[4:] == pytest.approx([0.25] * (PLACES - 4), rel=0.02)


def test_a_bias_may_be_assumed() -> None:
    found = assumed(1.0)
    assert found.values[:4] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert (found.taken, len(assumed(0).values), set(assumed(0).values)) == (0, PLACES, {1.0})
    assert isinstance(found, Propensities)
