"""`prepare`: judgements and a catalogue become a prepared set (see `services.trainer.prepared`)."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from services.trainer.errors import JobError
from services.trainer.prepared import ITEMS, REPORT, Grades, PreparedReport, PreparedSet, SplitCounts
from services.trainer.record import command_line
from shared.bundles.files import hash_file

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

HELP = "clean and split judgements (query, item_id, grade) and a catalogue into Parquet files to train on"


@dataclass(frozen=True)
class PrepareOptions:
    """Everything a prepared set depends on, besides the files it is made from."""

    catalogue: Path
    out: Path
    judgements: Sequence[Path] = ()
    """To be split here. Neither these nor `splits`: a catalogue alone, for the job pretrain."""
    splits: Mapping[str, Path] = field(default_factory=dict)
    """Split already, by name."""
    mapping: str | None = None
    grades: Grades = field(default_factory=lambda: Grades(lowest=0, highest=3, relevant=2))
    contradiction: float = 1.0
    shares: dict[str, float] = field(default_factory=lambda: {"train": 0.8, "valid": 0.1, "test": 0.1})
    drop_leaks: bool = False
    seed: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    parser.add_argument("--catalogue", required=True, type=Path, help="items: .jsonl, .csv (.gz, .zip) or .parquet")
    parser.add_argument("--mapping", help="columns of the catalogue (see python -m shared.catalogue check)")
    parser.add_argument(
        "--judgements",
        type=Path,
        action="append",
        default=[],
        help="CSV of query, item_id, grade, to be split here; without, and without --train: a catalogue for pretrain",
    )
    for name in ("train", "valid", "test"):
        parser.add_argument(f"--{name}", type=Path, help=f"CSV of judgements: the {name} split, as it is")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--lowest", type=float, default=0.0, help="grade of an irrelevant item (default %(default)s)")
    parser.add_argument("--highest", type=float, default=3.0, help="grade of a perfect item (default %(default)s)")
    parser.add_argument("--relevant", type=float, default=2.0, help="grades from here on are relevant (%(default)s)")
    parser.add_argument(
        "--contradiction",
        type=float,
        default=1.0,
        help="grades of one pair that differ this much contradict each other and are dropped (default %(default)s)",
    )
    parser.add_argument("--shares", default="0.8,0.1,0.1", help="of queries: train,valid,test (default %(default)s)")
    parser.add_argument("--drop-leaks", action="store_true", help="a query in two splits stays in the later one only")
    parser.add_argument("--seed", type=int, default=0, help="decides which query goes where (default %(default)s)")


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    splits = {name: path for name in ("train", "valid", "test") if (path := getattr(arguments, name)) is not None}
    prepare(
        PrepareOptions(
            catalogue=arguments.catalogue,
            out=arguments.out,
            judgements=arguments.judgements,
            splits=splits,
            mapping=arguments.mapping,
            grades=Grades(lowest=arguments.lowest, highest=arguments.highest, relevant=arguments.relevant),
            contradiction=arguments.contradiction,
            shares=_shares(arguments.shares),
            drop_leaks=arguments.drop_leaks,
            seed=arguments.seed,
        )
    )
    return 0


def prepare(options: PrepareOptions) -> PreparedSet:
    """Write the set. Raises `JobError` when a file is missing, a split is empty, or a query stands in two splits.

    The report is written last: a folder without it is not a prepared set.
    """
    from services.trainer.prepare.splits import check_splits, leaks, without_leaks

    if options.splits and (options.judgements or "train" not in options.splits):
        raise JobError("give either --judgements to be split here, or --train (and --valid, --test) split already")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / REPORT).unlink(missing_ok=True)
    catalogue = _write_items(options)
    splits, read, dropped = _clean(options)
    if options.drop_leaks and leaks(splits):
        splits, dropped["leak"] = without_leaks(splits)
    _tell(read, dropped)
    check_splits(splits)
    for name, rows in splits.items():
        rows.write_parquet(options.out / f"{name}.parquet", compression="zstd")
    written = [ITEMS, *(f"{name}.parquet" for name in splits)]
    sources = [options.catalogue, *options.judgements, *options.splits.values()]
    report = PreparedReport(
        grades=options.grades,
        sources={path.name: hash_file(path) for path in sources},
        catalogue=catalogue,
        read=read,
        dropped=dropped,
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


def _clean(options: PrepareOptions) -> tuple[dict[str, "pl.DataFrame"], int, dict[str, int]]:
    import polars as pl

    from services.trainer.prepare.cleaning import REASONS, clean
    from services.trainer.prepare.judgements import scan_csv
    from services.trainer.prepare.splits import split_by_query

    ids = pl.scan_parquet(options.out / ITEMS).select("item_id").unique()
    if not options.judgements and not options.splits:
        return {}, 0, {}
    if options.judgements:
        together = pl.concat([scan_csv(path) for path in options.judgements])
        cleaned = clean(together, ids, options.grades, options.contradiction)
        return split_by_query(cleaned.rows, options.shares, options.seed), cleaned.read, cleaned.dropped
    parts = {
        name: clean(scan_csv(path), ids, options.grades, options.contradiction) for name, path in options.splits.items()
    }
    dropped = {reason: sum(part.dropped[reason] for part in parts.values()) for reason in REASONS}
    return {name: part.rows for name, part in parts.items()}, sum(part.read for part in parts.values()), dropped


def _tell(read: int, dropped: Mapping[str, int]) -> None:
    from services.trainer.prepare.cleaning import REASONS

    if not read:
        log.info("no judgements: the job pretrain learns from a catalogue alone, the others need some")
    log.info("%s judgements read, %s dropped", f"{read:,}", f"{sum(dropped.values()):,}")
    for reason, rows in dropped.items():
        if rows:
            log.info("  %9s %s", f"{rows:,}", REASONS.get(reason, "the query stands in a later split too"))


def split_counts(rows: "pl.DataFrame", grades: Grades) -> SplitCounts:
    """How much a split holds."""
    return SplitCounts(
        judgements=rows.height,
        queries=rows["key"].n_unique(),
        items=rows["item_id"].n_unique(),
        relevant=int((rows["grade"] >= grades.relevant).sum()),
    )


def _shares(text: str) -> dict[str, float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or min(values) < 0 or values[0] <= 0:
        raise JobError(f"--shares {text}: want three shares of queries, as in 0.8,0.1,0.1")
    return {name: share for name, share in zip(("train", "valid", "test"), values, strict=True) if share}
