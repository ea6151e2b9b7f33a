"""Who is no shopper: visits of machines, and visits that are made up."""

import polars as pl

from services.trainer.behaviour.options import BehaviourOptions

REASONS = {
    "too_many": "of a visit with more events than a shopper makes",
    "too_fast": "of a visit faster than a shopper is",
    "made_up": "of a visit that mostly acts on items its pages did not have",
}

PAGE = pl.col("type") == "IMPRESSION"
ACT = pl.col("type").is_in(["VIEW", "CLICK", "ADD_TO_CART", "PURCHASE"])
NAMED = ACT & pl.col("request_id").is_not_null()
"""An act that a response of the mesh led to."""
NOT_SHOWN = NAMED & pl.col("position").is_null()
"""One of which the response's page did not have the item."""

_LEAST_TO_BE_FAST = 20
"""Events below which a rate says nothing: a shopper opens ten tabs in as many seconds."""
_LEAST_TO_BE_MADE_UP = 5


def visit() -> pl.Expr:
    """Whose visit an event is of: the session, or where there is none the user's day. A hash, 8 bytes for each of
    millions: that any two of ten million are taken for one has a chance of three in a million."""
    alone = pl.col("session_key").is_null()
    day = pl.when(alone).then(pl.col("occurred_at").dt.date())
    user = pl.when(alone).then(pl.col("user_key"))
    return pl.struct("session_key", user.alias("user"), day.alias("day")).hash().alias("visit")


def implausible(events: pl.LazyFrame, options: BehaviourOptions) -> pl.DataFrame:
    """Columns visit and visit_reason, one row for each visit that is no shopper's, with the first reason of `REASONS`.

    `events` has the columns of an archive. What stays in memory is one row a visit.
    """
    minutes = (pl.col("last") - pl.col("first")).dt.total_microseconds() / 60e6
    too_fast = (pl.col("events") >= _LEAST_TO_BE_FAST) & (pl.col("events") > options.most_a_minute * minutes)
    made_up = (pl.col("not_shown") >= _LEAST_TO_BE_MADE_UP) & (
        pl.col("not_shown") > options.most_not_shown * pl.col("named")
    )
    reason = (
        pl.when(pl.col("events") > options.most_events)
        .then(pl.lit("too_many"))
        .when(too_fast)
        .then(pl.lit("too_fast"))
        .when(made_up)
        .then(pl.lit("made_up"))
    )
    return (
        events.select(visit(), "occurred_at", NAMED.alias("named"), NOT_SHOWN.alias("not_shown"))
        .group_by("visit")
        .agg(
            pl.len().alias("events"),
            pl.col("occurred_at").min().alias("first"),
            pl.col("occurred_at").max().alias("last"),
            pl.col("named").sum(),
            pl.col("not_shown").sum().alias("not_shown"),
        )
        .select("visit", reason.alias("visit_reason"))
        .filter(pl.col("visit_reason").is_not_null())
        .collect(engine="streaming")
    )
