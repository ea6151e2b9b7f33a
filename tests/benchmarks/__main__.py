"""Measures, prints a table, writes build/bench/<part>.json. Never a test: it asserts nothing."""

import argparse
import asyncio
import contextlib
import signal
import sys

from tests.benchmarks import engine, events, figures, ingest, mesh, prepare, retrieval
from tests.benchmarks.bench import Options

PARTS = {
    "engine": engine.run,
    "retrieval": retrieval.run,
    "events": events.run,
    "mesh": mesh.run,
    "prepare": prepare.run,
}
"""What can be measured, by name."""
ROWS = {
    "engine": list(engine.ROWS),
    "retrieval": [*retrieval.ROWS, *ingest.ROWS],
    "events": list(events.ROWS),
    "mesh": list(mesh.ROWS),
    "prepare": list(prepare.ROWS),
}


async def _measured(part: str, options: Options) -> list[figures.Figure]:
    task = asyncio.current_task()
    if task is not None:
        # Ended politely, it ends what it started, as on Ctrl-C.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await PARTS[part](options)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--part", choices=sorted(PARTS), default="engine", help="what to measure (default: engine)")
    parser.add_argument("--quick", action="store_true", help="three rounds of shorter loads: to see that it runs")
    parser.add_argument("--full", action="store_true", help="also what takes too long for every time")
    parser.add_argument("--only", help="one row alone, written to a file of its own")
    given = parser.parse_args()
    if given.only is not None and given.only not in ROWS[given.part]:
        parser.error(f"--only: one of {', '.join(ROWS[given.part])}")
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        measured = asyncio.run(_measured(given.part, Options(given.quick, given.full, given.only)))
        # One row must not take the place of all of them.
        name = f"{given.part}-{given.only}" if given.only else given.part
        path = figures.write(name, measured, quick=given.quick, full=given.full)
        sys.stdout.write(f"written: {path}\n")
        return 0
    sys.stderr.write("stopped; nothing was written\n")
    return 130


if __name__ == "__main__":
    sys.exit(main())
