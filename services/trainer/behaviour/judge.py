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
from services.trainer.errors import TooLittleError
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
_WANTED = (
    "what is learnt from are pages that a search showed, of queries that {users} known users asked, and what was done "
    "with their items under the response's attribution_token"
)


@dataclass(frozen=True)
class Judged:
    """Judgements (`judgements.COLUMNS`), one a pair, and how they came about."""

    rows: pl.DataFrame
    report: BehaviourReport


@dataclass(frozen=True)
class Split:
    """How the log's time is cut: `shares` by split, in the order of time."""

    shares: Mapping[str, float]
    seed: int


def judge(options: BehaviourOptions, grades: Grades, by_time: Split | None, scratch: Path) -> Judged:
    """Reads the archive file by file, twice, and what is needed of it by queries; `scratch`, a folder, takes as much
    again. What stays in memory: one row a visit, and one a pair that gets a grade or tells propensities.

    Raises `TooLittleError` where the archive is empty, says nothing of any pair, or cannot tell the propensities.
    """
    archive = Archive(options.archive)
    wanted = _WANTED.format(users=options.least_users)
    if not (files := archive.files):
        remedy = f"{options.events} has logged none so far; {wanted}" if options.events else "give --events HOST:PORT"
        raise TooLittleError(f"{options.archive} holds no events: {remedy}")
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
        raise TooLittleError(
            f"nothing can be learnt from {options.archive}. Of {sorted_events.events:,} events, {told}. Wait for more: "
            f"{wanted}"
        )
    propensities = _propensities(counted, options)
    graded = _grade(counted, propensities, options, grades)
    if graded.rows.is_empty():
        raise TooLittleError(
            f"nothing can be learnt from {options.archive}: none of {graded.pairs:,} pairs of a query and an item was "
            f"seen {options.least_seen:g} times (shown, times the chance that its place is looked at). Wait for more, "
            "or give a smaller --least-seen"
        )
    report = BehaviourReport(
        events=sorted_events.events,
        dropped={reason: dropped[reason] for reason in EVENT_REASONS},
        undoing=sorted_events.undoing,
        pairs=graded.pairs,
        pairs_dropped={"little_seen": graded.pairs - graded.rows.height, "unknown_item": 0, "judged": 0},
        propensities=[round(float(value), 4) for value in propensities.values[: propensities.learnt or None]],
        propensities_from=propensities.taken,
        average_value=graded.average,
        top_value=graded.top,
        begins={name: begin.isoformat() for name, begin in cut.begins.items()} if cut is not None else {},
    )
    return Judged(graded.rows, report)


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
    rows: pl.DataFrame
    """query, item_id and grade of the pairs that were seen often enough."""
    pairs: int
    average: float
    top: float


def _grade(counted: Sequence[Path], propensities: Propensities, options: BehaviourOptions, grades: Grades) -> _Graded:
    weight = times_seen = 0.0
    pairs = 0
    parts = []
    for file in counted:
        rows = grading.seen(pl.read_parquet(file), propensities, options.clip)
        weight += float(rows["weight"].sum())
        times_seen += float(rows["seen"].sum())
        pairs += rows.height
        parts.append(rows.filter(pl.col("seen") >= options.least_seen))
    average = weight / times_seen
    valued = pl.concat(parts).with_columns(grading.value(average, options.least_seen))
    top = grading.top_value(valued["value"], options.top_share)
    return _Graded(valued.select("query", "item_id", grading.grade(top, grades)), pairs, average, top)
