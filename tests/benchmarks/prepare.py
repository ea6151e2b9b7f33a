"""Part "prepare": what judging from a long behaviour log takes, its files on disk already.

Shoppers are simulated: a long tail of queries, ten items a page, half of all events pages.
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from services.trainer.behaviour.archive import Archive
from services.trainer.prepared import open_prepared
from shared.catalogue import write_jsonl
from shared.items import Item
from tests.benchmarks.bench import Measured, Options, Row, figures_of
from tests.benchmarks.figures import ROOT, Figure, Goal
from tests.benchmarks.usage import Usage, usage
from tests.support.simulated_log import Shop

EVENTS = 10_000_000
_QUICK_EVENTS = 500_000
_EVENTS_A_PAGE = 2.2
"""What `Shop` makes of one, as a rule."""
_POLL_S = 0.05


async def from_log(options: Options) -> list[Measured]:
    """Peak memory and time of `prepare --archive`."""
    with tempfile.TemporaryDirectory(prefix="aisle-prepare-") as made:
        folder = Path(made)
        shop = Shop(queries=50_000, candidates=20, users=500_000, days=365)
        events = _write(shop, folder, _QUICK_EVENTS if options.quick else EVENTS)
        started = time.monotonic()
        used = await _run(folder)
        seconds = time.monotonic() - started
        report = open_prepared(folder / "out").report
    assert report.behaviour is not None
    note = (
        f"{events:,} events, {report.behaviour.pairs:,} pairs of a query and an item, "
        f"{sum(split.judgements for split in report.splits.values()):,} of them graded; {used.cpu_s:.0f} s of processor"
    )
    raw = {"events": events, "cpu_s": used.cpu_s, "load_average": os.getloadavg(), "report": report.model_dump()}
    return [Measured(used.peak_mib, raw, note), Measured(seconds, raw, note)]


def _write(shop: Shop, folder: Path, wanted: int) -> int:
    """An archive and a catalogue; how many events there are."""
    archive = Archive(folder / "log")
    events = 0
    with archive.appending() as append:
        for table in shop.log(int(wanted / _EVENTS_A_PAGE)):
            append(table, str(events))
            events += table.num_rows
    ids = (shop.item_id(query, item) for query in range(shop.queries) for item in range(shop.candidates))
    write_jsonl((Item(id=one, title="an item") for one in ids), folder / "items.jsonl")
    return events


async def _run(folder: Path) -> Usage:
    arguments = [
        *("--catalogue", folder / "items.jsonl"),
        *("--archive", folder / "log"),
        *("--out", folder / "out"),
    ]
    job = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.trainer", "prepare", *map(str, arguments), cwd=ROOT
    )
    used = Usage()
    while job.returncode is None:
        now = usage(job.pid)
        used = now if now.peak_mib else used
        await asyncio.sleep(_POLL_S)
    if job.returncode:
        raise RuntimeError(f"prepare ended with {job.returncode}")
    return used


ROWS: dict[str, Row[Options]] = {
    "log": Row(
        (
            Goal(f"prepare from a log of {EVENTS:,} events, peak memory", None, "lower", "MiB"),
            Goal(f"prepare from a log of {EVENTS:,} events, time", None, "lower", "s"),
        ),
        from_log,
    )
}


async def run(options: Options) -> list[Figure]:
    """All rows, or the one wanted."""
    return await figures_of(ROWS, options, options.only)
