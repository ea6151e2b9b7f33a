"""How often each item of a query was shown at a place of the list, and how often it was taken from there."""

from collections import Counter

import polars as pl

from services.trainer.behaviour.visits import PAGE
from services.trainer.prepare.judgements import KEY

PLACES = 50
"""Places that are told apart; all that is further down counts as the last. Five pages of ten: hardly anybody gets
there, and what a log says of such depths is chance."""

REASONS = {
    "rare_query": "too few users asked the query",
    "repeated": "the same of the same response was told before",
    "no_page": "nothing says that the page it names was shown",
}


def count(events: pl.DataFrame, least_users: int, dropped: Counter[str]) -> pl.DataFrame:
    """One row for each item and place of each query, in their order: key, query, item_id, place (from 0), shown
    (times), taken (of these), and weight (of what was taken, summed: the strongest act of each time shown).

    `events`: a file of `by_query`. Counts events that are not used in `dropped`. A query's text is the first of its
    spellings by code point.
    """
    users = events.group_by(KEY).agg(pl.col("user").n_unique().alias("users"), pl.col("query").min())
    asked = events.drop("query").join(users, on=KEY, how="left", maintain_order="left")
    common = asked.filter(pl.col("users") >= least_users)
    dropped["rare_query"] += asked.height - common.height
    pages = common.filter(PAGE)
    shown = _shown(pages)
    dropped["repeated"] += pages.height - shown["page"].n_unique()
    acts = common.filter(~PAGE)
    single = acts.unique(["response", "item_id", "type"], keep="first")
    dropped["repeated"] += acts.height - single.height
    taken = single.group_by("response", "item_id").agg(pl.col("weight").max(), pl.len().alias("acts"))
    told = shown.join(taken, on=["response", "item_id"], how="left")
    dropped["no_page"] += single.height - int(told["acts"].sum())
    counts = told.group_by(KEY, "query", "item_id", "place").agg(
        pl.len().alias("shown"), pl.col("acts").is_not_null().sum().alias("taken"), pl.col("weight").sum()
    )
    # Sums of fractions depend on their order: the same log is to give the same grades.
    return counts.sort(KEY, "item_id", "place")


def _shown(pages: pl.DataFrame) -> pl.DataFrame:
    """One row an item of a response, with the number of the event that told of it first."""
    place = (pl.col("at") + pl.col("first_position")).clip(upper_bound=PLACES - 1)
    return (
        pages.drop("item_id", "weight", "type")
        .with_row_index("page")
        .with_columns(pl.int_ranges(0, pl.col("item_ids").list.len()).alias("at"))
        .explode("item_ids", "at")
        .rename({"item_ids": "item_id"})
        .unique(["response", "item_id"], keep="first", maintain_order=True)
        .with_columns(place.cast(pl.UInt8).alias("place"))
    )
