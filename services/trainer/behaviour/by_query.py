"""The events of searches, looked at one by one, sorted into files by query: what follows needs a query's events
together, and never more than some queries' at a time."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from services.trainer.behaviour.visits import ACT, NAMED, NOT_SHOWN, PAGE, visit
from services.trainer.prepare.judgements import KEY, query_key
from shared.behaviour import WEIGHTS

REASONS = {
    "unattributed": "no response of the mesh led to it",
    "no_search": "what led to it was no search",
    "not_shown": "the page it names did not have the item",
    "undone": "put into a cart and taken out again, or bought and sent back",
}

_UNDOES = {"REMOVE_FROM_CART": "ADD_TO_CART", "RETURN": "PURCHASE"}
_FILE_EVENTS = 200_000
"""Of one file by query: with ten items a page, some 200 MB while it is worked on."""
_MOST_FILES = 256
"""Which are open at once."""


@dataclass(frozen=True)
class Sorted:
    """What became of all events. A row of a file is a page or an act: key, query, type, response, item_id, item_ids,
    first_position, weight (of the act, by `shared.behaviour`), user, occurred_at."""

    files: Sequence[Path]
    events: int
    dropped: Counter[str]
    undoing: int
    """Removals and returns: they are used up here."""


def undone(events: pl.LazyFrame) -> pl.DataFrame:
    """Columns actor, item_id, type and undone_at: when somebody last took back what they did with an item."""
    return (
        events.filter(pl.col("type").is_in(list(_UNDOES)))
        .group_by(_actor(), "item_id", pl.col("type").replace_strict(_UNDOES))
        .agg(pl.col("occurred_at").max().alias("undone_at"))
        .collect(engine="streaming")
    )


def sort(
    files: Iterable[Path], events: int, implausible: pl.DataFrame, undone_acts: pl.DataFrame, folder: Path
) -> Sorted:
    """Reads an archive's `files` of `events` events, one after the other, and writes those by query into `folder`.

    `implausible`: see `visits`. `undone_acts`: see `undone`.
    """
    count = min(_MOST_FILES, -(-events // _FILE_EVENTS))
    targets = [folder / f"events-{number:03}.parquet" for number in range(count)]
    dropped: Counter[str] = Counter()
    read = undoing = 0
    with ExitStack() as stack:
        writers: dict[int, pq.ParquetWriter] = {}
        for file in files:
            flagged = _flagged(pl.read_parquet(file), implausible, undone_acts)
            read += flagged.height
            dropped.update(dict(flagged.drop_nulls("reason").group_by("reason").len().iter_rows()))
            kept = flagged.filter(pl.col("reason").is_null())
            undoing += kept.filter(~(PAGE | ACT)).height
            for (number,), rows in _rows(kept, count).partition_by("file", as_dict=True, include_key=False).items():
                table = rows.to_arrow()
                if number not in writers:
                    writers[number] = stack.enter_context(_writer(targets[number], table.schema))
                writers[number].write_table(table)
    return Sorted([target for target in targets if target.exists()], read, dropped, undoing)


def _writer(target: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(target, schema, compression="zstd")


def _actor() -> pl.Expr:
    return pl.coalesce("user_key", "session_key").hash().alias("actor")


def _flagged(events: pl.DataFrame, implausible: pl.DataFrame, undone_acts: pl.DataFrame) -> pl.DataFrame:
    """With the column reason: why an event cannot be used, or null."""
    reason = (
        pl.when(pl.col("visit_reason").is_not_null())
        .then(pl.col("visit_reason"))
        .when(~(PAGE | ACT))
        .then(None)
        .when(pl.col("request_id").is_null())
        .then(pl.lit("unattributed"))
        .when((pl.col("surface") != "SEARCH").fill_null(True) | pl.col("query").is_null())
        .then(pl.lit("no_search"))
        .when(NOT_SHOWN)
        .then(pl.lit("not_shown"))
        .when(NAMED & (pl.col("undone_at") >= pl.col("occurred_at")))
        .then(pl.lit("undone"))
    )
    return (
        events.with_columns(visit(), _actor())
        .join(implausible, on="visit", how="left", maintain_order="left")
        .join(undone_acts, on=["actor", "item_id", "type"], how="left", maintain_order="left")
        .with_columns(reason.alias("reason"))
    )


def _rows(kept: pl.DataFrame, files: int) -> pl.DataFrame:
    rows = kept.filter(PAGE | ACT).with_columns(query_key())
    return rows.select(
        KEY,
        "query",
        "type",
        # Callers may give one request id to several searches. A hash, 8 bytes for each of millions: see `visits.visit`.
        pl.struct("request_id", KEY).hash().alias("response"),
        "item_id",
        "item_ids",
        "first_position",
        pl.col("type").replace_strict(WEIGHTS, default=0.0).alias("weight"),
        pl.col("user_key").hash().alias("user"),
        "occurred_at",
        (pl.col(KEY).hash() % files).cast(pl.Int32).alias("file"),
    )
