"""Which judgements are fit to learn from, and why the others are not."""

from dataclasses import dataclass

import polars as pl

from services.trainer.prepare.judgements import KEY, query_key
from services.trainer.prepared import Grades

REASONS = {
    "missing_query": "the query is empty",
    "missing_item": "the item id is empty",
    "missing_grade": "the grade is empty or not a number",
    "grade_out_of_range": "the grade is outside the scale",
    "unknown_item": "the catalogue has no such item",
    "duplicate": "the same query and item were judged before; the grades' mean stands",
    "contradictory": "judgements of one query and item are too far apart; all of them are dropped",
}
"""Every reason for which a row is dropped, in the order in which they are looked for; a row counts once."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What is left, sorted by key and item: columns key, query, item_id, grade."""

    rows: pl.DataFrame
    read: int
    dropped: dict[str, int]
    """Rows by reason; all of `REASONS`, also those that nothing was dropped for."""


def clean(judgements: pl.LazyFrame, item_ids: pl.LazyFrame, grades: Grades, contradiction: float) -> Cleaned:
    """Drop what cannot be used; see `REASONS`.

    `item_ids` has the column item_id. Grades of one (query, item) pair that differ by `contradiction` or more
    contradict each other. The streaming engine reads the judgements in pieces; what stays in memory is one row a
    distinct pair.
    """
    flagged = _flag(judgements, item_ids, grades)
    counts = flagged.group_by("reason").agg(pl.len().alias("rows")).collect(engine="streaming")
    dropped = dict.fromkeys(REASONS, 0)
    read = 0
    for reason, rows in counts.iter_rows():
        read += rows
        if reason is not None:
            dropped[reason] = rows
    pairs = _pairs(flagged.filter(pl.col("reason").is_null()))
    torn = (pl.col("high") - pl.col("low") >= contradiction) & (pl.col("rows") > 1)
    dropped["contradictory"] = int(pairs.filter(torn)["rows"].sum())
    kept = pairs.filter(~torn)
    dropped["duplicate"] = int((kept["rows"] - 1).sum())
    return Cleaned(kept.select(KEY, "query", "item_id", "grade"), read, dropped)


def _flag(judgements: pl.LazyFrame, item_ids: pl.LazyFrame, grades: Grades) -> pl.LazyFrame:
    known = item_ids.select("item_id", pl.lit(True).alias("known"))
    reason = (
        pl.when(pl.col("query").is_null())
        .then(pl.lit("missing_query"))
        .when(pl.col("item_id").is_null())
        .then(pl.lit("missing_item"))
        .when(pl.col("grade").is_null())
        .then(pl.lit("missing_grade"))
        .when(~pl.col("grade").is_between(grades.lowest, grades.highest))
        .then(pl.lit("grade_out_of_range"))
        .when(pl.col("known").is_null())
        .then(pl.lit("unknown_item"))
    )
    return judgements.join(known, on="item_id", how="left").with_columns(reason.alias("reason"), query_key())


def _pairs(rows: pl.LazyFrame) -> pl.DataFrame:
    """One row a (query, item) pair; of several spellings of a query the first by code point stands."""
    return (
        rows.group_by(KEY, "item_id")
        .agg(
            pl.col("query").min(),
            pl.col("grade").mean(),
            pl.col("grade").min().alias("low"),
            pl.col("grade").max().alias("high"),
            pl.len().cast(pl.Int64).alias("rows"),
        )
        .sort(KEY, "item_id")
        .collect(engine="streaming")
    )
