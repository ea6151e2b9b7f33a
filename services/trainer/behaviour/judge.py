"""From an archive to judgements: who saw what where, and what that says of each pair of query and item."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from tqdm import tqdm

from services.trainer.behaviour import by_query, grading, places, propensity, visits
from services.trainer.behaviour.archive import Archive
from services.trainer.behaviour.options import BehaviourOptions
from services.trainer.behaviour.periods import Periods, periods
from services.trainer.behaviour.propensity import Propensities
from services.trainer.errors import JobError
from services.trainer.prepare.judgements import COLUMNS
from services.trainer.prepared import BehaviourReport, Grades

EVENT_REASONS = {
    **visits.REASONS,
    **by_query.REASONS,
    "other_time": "of a time that another split has",
    **places.REASONS,
}
"""Every reason for which an event is dropped, in the order in which they are looked for; an event counts once."""
PAIR_REASONS = {
    "little_seen": "the pair was seen too few times",
    "unknown_item": "the catalogue has no such item",
    "judged": "people judged the pair: their grade stands",
}
"""The same for pairs of query and item."""


@dataclass(frozen=True)
class Judged:
    """Judgements (`judgements.COLUMNS`), one a pair, in files of the scratch folder, and how they came about."""

    rows: pl.LazyFrame
    report: BehaviourReport


@dataclass(frozen=True)
class Split:
    """How the log's time is cut: `shares` by split, in the order of time."""

    shares: Mapping[str, float]
    seed: int


def judge(options: BehaviourOptions, grades: Grades, by_time: Split | None, scratch: Path) -> Judged:
    """Reads the archive file by file, twice; `scratch` (a folder) takes some times its size.

    Raises `JobError` where the archive is empty or cannot tell the propensities.
    """
    archive = Archive(options.archive)
    if not (files := archive.files):
        raise JobError(f"{options.archive} holds no events: give --events HOST:PORT to fetch them")
    events = pl.scan_parquet(files)
    cut = periods(events.filter(visits.PAGE), by_time.shares, by_time.seed) if by_time is not None else None
    sorted_events = by_query.sort(
        tqdm(files, "sorting events by query", unit="file", disable=None, leave=False),
        archive.events(),
        visits.implausible(events, options),
        by_query.undone(events),
        scratch,
    )
    dropped = sorted_events.dropped
    counted = _count(sorted_events.files, options, cut, dropped, scratch)
    if not counted:
        told = "; ".join(f"{count:,}: {EVENT_REASONS[reason]}" for reason, count in (+dropped).most_common())
        raise JobError(f"nothing can be learnt from {options.archive}. Of {sorted_events.events:,} events, {told}")
    propensities = _propensities(counted, options)
    judged = _grade(counted, propensities, options, grades, scratch)
    report = BehaviourReport(
        events=sorted_events.events,
        dropped={reason: dropped[reason] for reason in EVENT_REASONS},
        undoing=sorted_events.undoing,
        pairs=judged.pairs,
        pairs_dropped={"little_seen": judged.little_seen, "unknown_item": 0, "judged": 0},
        propensities=[round(float(value), 4) for value in propensities.values[: propensities.learnt or None]],
        propensities_from=propensities.taken,
        average_value=judged.average,
        top_value=judged.top,
        begins={name: begin.isoformat() for name, begin in cut.begins.items()} if cut is not None else {},
    )
    return Judged(pl.scan_parquet(judged.files).select(list(COLUMNS)), report)


def _count(
    files: Sequence[Path], options: BehaviourOptions, cut: Periods | None, dropped: Counter[str], scratch: Path
) -> list[Path]:
    """Files of `places.count`, those without a row left out."""
    counted = []
    for file in tqdm(files, "counting what was shown", unit="file", disable=None, leave=False):
        rows = pl.read_parquet(file)
        file.unlink()
        if cut is not None:
            within = cut.within(rows)
            dropped["other_time"] += rows.height - within.height
            rows = within
        target = scratch / file.name.replace("events", "places")
        found = places.count(rows, options.least_users, dropped)
        if not found.is_empty():
            found.write_parquet(target)
            counted.append(target)
    return counted


def _propensities(counted: Sequence[Path], options: BehaviourOptions) -> Propensities:
    if options.position_bias is not None:
        return propensity.assumed(options.position_bias)
    return propensity.estimate(pl.concat([propensity.informative(pl.read_parquet(file)) for file in counted]))


@dataclass(frozen=True)
class _Graded:
    files: list[Path]
    pairs: int
    little_seen: int
    average: float
    top: float


def _grade(
    counted: Sequence[Path], propensities: Propensities, options: BehaviourOptions, grades: Grades, scratch: Path
) -> _Graded:
    weight = times_seen = 0.0
    pairs = enough = 0
    seen_files = []
    for file in counted:
        rows = grading.seen(pl.read_parquet(file), propensities, options.clip)
        weight += float(rows["weight"].sum())
        times_seen += float(rows["seen"].sum())
        pairs += rows.height
        target = scratch / file.name.replace("places", "seen")
        rows.filter(pl.col("seen") >= options.least_seen).write_parquet(target)
        seen_files.append(target)
    average = weight / times_seen if times_seen else 0.0
    value = grading.value(average, options.least_seen)
    top = grading.top_value((pl.read_parquet(file).select(value)["value"].to_numpy() for file in seen_files), options)
    graded = []
    for file in seen_files:
        rows = pl.read_parquet(file).with_columns(value).with_columns(grading.grade(top, grades))
        enough += rows.height
        target = scratch / file.name.replace("seen", "graded")
        rows.write_parquet(target)
        graded.append(target)
    return _Graded(graded, pairs, pairs - enough, average, top)
