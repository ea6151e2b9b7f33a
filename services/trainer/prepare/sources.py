"""Where a prepared set's judgements come from: files of what people say, and the behaviour log."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from services.trainer.behaviour.judge import Split, judge
from services.trainer.behaviour.options import BehaviourOptions
from services.trainer.prepare.cleaning import REASONS, clean
from services.trainer.prepare.judgements import KEY, scan_csv
from services.trainer.prepare.options import PrepareOptions, SplitBy
from services.trainer.prepare.splits import split_by_query
from services.trainer.prepared import ITEMS, SPLITS, BehaviourReport


def judged(options: PrepareOptions) -> tuple[dict[str, pl.DataFrame], int, dict[str, int]]:
    """What people judged, by split; how many judgements were read; and how many dropped, by reason."""
    ids = _item_ids(options)
    if options.judgements:
        together = pl.concat([scan_csv(path) for path in options.judgements])
        cleaned = clean(together, ids, options.grades, options.contradiction)
        return split_by_query(cleaned.rows, options.shares, options.seed), cleaned.read, cleaned.dropped
    parts = {
        name: clean(scan_csv(path), ids, options.grades, options.contradiction) for name, path in options.splits.items()
    }
    dropped = {reason: sum(part.dropped[reason] for part in parts.values()) for reason in REASONS}
    return {name: part.rows for name, part in parts.items()}, sum(part.read for part in parts.values()), dropped


def with_log(
    options: PrepareOptions, behaviour: BehaviourOptions, judged: Mapping[str, pl.DataFrame]
) -> tuple[dict[str, pl.DataFrame], BehaviourReport]:
    """`judged` with what the log says of pairs that nobody judged, by split."""
    split = Split(options.log_shares, options.seed)
    by_time = split if options.split_by is SplitBy.TIME else None
    with TemporaryDirectory(dir=options.out, prefix=".log-") as scratch:
        found = judge(behaviour, options.grades, by_time, Path(scratch))
    cleaned = clean(found.rows.lazy(), _item_ids(options), options.grades, options.contradiction)
    rows = cleaned.rows
    for known in judged.values():
        rows = rows.join(known, on=[KEY, "item_id"], how="anti")
    parts = {**split_by_query(rows, split.shares, split.seed)}
    pairs_dropped = {
        **found.report.pairs_dropped,
        "unknown_item": cleaned.dropped["unknown_item"],
        "judged": cleaned.rows.height - rows.height,
    }
    together = {
        name: pl.concat([source[name] for source in (judged, parts) if name in source]).sort(KEY, "item_id")
        for name in SPLITS
        if name in judged or name in parts
    }
    return together, found.report.model_copy(update={"pairs_dropped": pairs_dropped})


def _item_ids(options: PrepareOptions) -> pl.LazyFrame:
    return pl.scan_parquet(options.out / ITEMS).select("item_id").unique()
