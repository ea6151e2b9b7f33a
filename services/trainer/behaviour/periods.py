"""The log's time, cut into one period a split: a model is tested on what happened after what it learnt from."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from services.trainer.errors import TooLittleError
from services.trainer.prepare.judgements import KEY
from services.trainer.prepare.splits import home_of


@dataclass(frozen=True)
class Periods:
    """From `begins` of each split, in the order of time, to that of the next. A query has its split by its hash, as
    ever, and of the log what happened to it in that split's time: so neither a query nor a day is in two splits."""

    begins: Mapping[str, datetime]
    shares: Mapping[str, float]
    seed: int

    def within(self, events: pl.DataFrame) -> pl.DataFrame:
        """Those `events` (key and occurred_at, in any order) that happened in the time of their query's split."""
        names = list(self.begins)
        keys = events.get_column(KEY).unique()
        home = pl.DataFrame({KEY: keys, "home": [names.index(home_of(key, self.shares, self.seed)) for key in keys]})
        period = pl.sum_horizontal(pl.col("occurred_at") >= begin for begin in list(self.begins.values())[1:])
        placed = events.join(home, on=KEY, how="left", maintain_order="left")
        return placed.filter(pl.col("home") == period.cast(pl.Int64)).drop("home")


def periods(times: pl.LazyFrame, shares: Mapping[str, float], seed: int) -> Periods:
    """Cuts at whole hours, so that each split has about its share of the events. `times` has the column occurred_at.

    Raises `TooLittleError` where the log is shorter than its splits.
    """
    hours = (
        times.group_by(pl.col("occurred_at").dt.truncate("1h").alias("hour"))
        .agg(pl.len().alias("events"))
        .sort("hour")
        .collect(engine="streaming")
    )
    total = int(hours["events"].sum())
    before = hours["events"].cum_sum() - hours["events"]
    begins: dict[str, datetime] = {}
    wanted = 0.0
    for name, share in shares.items():
        at = int((before < wanted * total / sum(shares.values())).sum())
        if at >= hours.height or hours["hour"][at] in begins.values():
            raise TooLittleError(f"--split-by time: the log has {hours.height} hours, too few for {', '.join(shares)}")
        begins[name] = hours["hour"][at]
        wanted += share
    return Periods(begins, shares, seed)
