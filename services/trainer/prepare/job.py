"""`prepare`: judgements, a behaviour log and a catalogue become a prepared set (see `services.trainer.prepared`)."""

import argparse
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from services.trainer.errors import JobError, TooLittleError
from services.trainer.prepare.options import PrepareOptions, add_arguments, given
from services.trainer.prepared import ITEMS, REPORT, BehaviourReport, Grades, PreparedReport, PreparedSet, SplitCounts
from services.trainer.record import command_line
from shared.bundles import FileEntry
from shared.bundles.files import hash_file

if TYPE_CHECKING:
    import polars as pl

__all__ = ["HELP", "PrepareOptions", "add_arguments", "main", "prepare", "split_counts"]

log = logging.getLogger(__name__)

HELP = "clean and split judgements, and what shoppers did, and a catalogue into Parquet files to train on"


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    prepare(given(arguments))
    return 0


def prepare(options: PrepareOptions) -> PreparedSet:
    """Write the set. Raises `JobError` when a file is missing or a query stands in two splits, and `TooLittleError`,
    unless that is allowed, when a split is empty or the log says too little.

    The report is written last: a folder without it is not a prepared set.
    """
    from services.trainer.prepare.sources import judged, with_log
    from services.trainer.prepare.splits import check_splits, leaks, without_leaks

    options.check()
    if options.behaviour is not None and options.behaviour.events:
        _fetch(options.behaviour.events, options.behaviour.archive)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / REPORT).unlink(missing_ok=True)
    catalogue = _write_items(options)
    splits, read, dropped = judged(options)
    logged = None
    if options.behaviour is not None:
        try:
            splits, logged = with_log(options, options.behaviour, splits)
        except TooLittleError as error:
            _allow(error, options)
    if options.drop_leaks and leaks(splits):
        splits, dropped["leak"] = without_leaks(splits)
    _tell(read, dropped, logged)
    try:
        check_splits(splits)
    except TooLittleError as error:
        _allow(error, options)
        splits = {}
    for name, rows in splits.items():
        rows.write_parquet(options.out / f"{name}.parquet", compression="zstd")
    written = [ITEMS, *(f"{name}.parquet" for name in splits)]
    report = PreparedReport(
        grades=options.grades,
        sources=_sources(options),
        catalogue=catalogue,
        read=read,
        dropped=dropped,
        behaviour=logged,
        splits={name: split_counts(rows, options.grades) for name, rows in splits.items()},
        files={name: hash_file(options.out / name) for name in written},
        seed=options.seed,
        command=command_line(),
    )
    (options.out / REPORT).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for name, counts in report.splits.items():
        log.info(
            "%-6s %9s judgements of %s queries and %s items, %s relevant",
            *(name, *(f"{n:,}" for n in (counts.judgements, counts.queries, counts.items, counts.relevant))),
        )
    return PreparedSet(options.out, report)


def _fetch(target: str, folder: Path) -> None:
    from services.trainer.behaviour.archive import Archive
    from services.trainer.behaviour.forgetting import forget
    from services.trainer.behaviour.log import fetch

    archive = Archive(folder)
    new, gone = fetch(target, archive), forget(target, archive)
    log.info("log    %9s new events, %s in %s", f"{new:,}", f"{archive.events():,}", folder)
    if gone:
        log.info(
            "       %9s dropped, which the log no longer keeps: their users were forgotten, or they are old",
            f"{gone:,}",
        )


def _allow(error: TooLittleError, options: PrepareOptions) -> None:
    if not options.allow_empty:
        raise error
    log.info("%s", error)


def _write_items(options: PrepareOptions) -> dict[str, int]:
    from services.trainer.prepare.items import write_items
    from shared.catalogue import CatalogueError

    try:
        counts = write_items(options.catalogue, options.mapping, options.out / ITEMS)
    except CatalogueError as error:
        raise JobError(str(error)) from error
    numbers = asdict(counts)
    log.info("items  %9s, %s rows rejected, %s replaced by a later row", *map("{:,}".format, numbers.values()))
    return numbers


def _sources(options: PrepareOptions) -> dict[str, FileEntry]:
    paths = [options.catalogue, *options.judgements, *options.splits.values()]
    files = {path.name: hash_file(path) for path in paths}
    if options.behaviour is None:
        return files
    from services.trainer.behaviour.archive import Archive

    return {**files, "behaviour log": Archive(options.behaviour.archive).entry()}


def _tell(read: int, dropped: Mapping[str, int], logged: BehaviourReport | None) -> None:
    from services.trainer.behaviour.judge import EVENT_REASONS, PAIR_REASONS
    from services.trainer.prepare.cleaning import REASONS

    reasons = {**REASONS, "leak": "the query stands in a later split too"}
    if read:
        _tell_of("judgements", read, dropped, reasons)
    if not read and logged is None:
        log.info("no judgements: the job pretrain learns from a catalogue alone, retrain waits, the others need some")
    if logged is not None:
        _tell_of("events", logged.events, logged.dropped, EVENT_REASONS)
        _tell_of("pairs of a query and an item", logged.pairs, logged.pairs_dropped, PAIR_REASONS)
        log.info("places seen, by the first ten: %s", " ".join(f"{each:.2f}" for each in logged.propensities[:10]))


def _tell_of(what: str, read: int, dropped: Mapping[str, int], reasons: Mapping[str, str]) -> None:
    log.info("%s %s, %s dropped", f"{read:,}", what, f"{sum(dropped.values()):,}")
    for reason, rows in dropped.items():
        if rows:
            log.info("  %9s %s", f"{rows:,}", reasons[reason])


def split_counts(rows: "pl.DataFrame", grades: Grades) -> SplitCounts:
    """How much a split holds."""
    return SplitCounts(
        judgements=rows.height,
        queries=rows["key"].n_unique(),
        items=rows["item_id"].n_unique(),
        relevant=int((rows["grade"] >= grades.relevant).sum()),
    )
