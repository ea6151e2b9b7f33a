from datetime import timedelta

import polars as pl
import pytest

from services.trainer.behaviour.periods import Periods, periods
from services.trainer.errors import JobError
from services.trainer.prepare.splits import home_of
from tests.support.logged import START

SHARES = {"train": 0.5, "valid": 0.2, "test": 0.3}


def times(*hours: float) -> pl.LazyFrame:
    return pl.LazyFrame({"occurred_at": [START + timedelta(hours=hour) for hour in hours]})


def test_each_split_has_its_share_of_the_events() -> None:
    # Nine in the first hour, one in each of nine more.
    cut = periods(times(*[0.5] * 9, *range(1, 10)), SHARES, seed=0)
    assert {name: begin - START for name, begin in cut.begins.items()} == {
        "train": timedelta(),
        "valid": timedelta(hours=1),
        "test": timedelta(hours=5),
    }


def test_a_query_has_what_happened_in_the_time_of_its_split() -> None:
    cut = Periods({"train": START, "test": START + timedelta(hours=5)}, {"train": 0.5, "test": 0.5}, seed=3)
    keys = [f"query {at}" for at in range(20)]
    events = pl.DataFrame({"key": keys * 10}).with_columns(
        pl.Series("occurred_at", [START + timedelta(hours=at // 20) for at in range(200)])
    )
    found = cut.within(events)
    assert found.height == 100
    late = found["occurred_at"] >= cut.begins["test"]
    homes = [home_of(key, cut.shares, 3) for key in found["key"]]
    assert late.to_list() == [home == "test" for home in homes]
    assert set(homes) == {"train", "test"}


def test_a_log_that_is_too_short_is_named() -> None:
    with pytest.raises(JobError, match="has 2 hours"):
        periods(times(0, 1), SHARES, seed=0)
