"""A load on one mesh or service, whose telemetry is off and on in turns of a second: python -m
tests.benchmarks.switching … prints one JSON line.

What telemetry costs is less than what a shared machine drifts by from one load to the next, and less than two
processes of the same code differ by (5 %, with telemetry off in both). So it is switched in the processes that run, and
which half of a pair comes first changes from pair to pair. They need `switch_telemetry` on their PYTHONPATH.
"""

import argparse
import asyncio
import json
import math
import os
import signal
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from tests.benchmarks import load, switch_telemetry, wire

PAIRS = 10
"""Of turns, by one load."""
SWITCHED = {"PYTHONPATH": os.pathsep.join([str(Path(switch_telemetry.__path__[0])), os.environ.get("PYTHONPATH", "")])}
"""Environment of a process that can be switched."""
_TURN_S = 1.0

Rates = tuple[list[float], list[float]]
"""Requests/s of each turn with telemetry on, and of its pair with telemetry off."""


async def on_and_off(target: str, pids: Sequence[int], *, callers: int, loads: int, title: str) -> Rates:
    """`PAIRS` pairs by each of so many loads on `target` (as `wire.callers` takes it), which `pids` serve."""
    on: list[float] = []
    off: list[float] = []
    for number in track(range(loads), description=title):
        options = ("--pids", *map(str, pids), "--callers", str(callers), "--offset", str(977 * number))
        found = await load.elsewhere("tests.benchmarks.switching", target, *options)
        on += found["on"]
        off += found["off"]
    return on, off


def ratio(rates: Rates) -> tuple[float, float]:
    """Median over the pairs of on by off, and its standard error: √(π/2) times that of a mean, where the errors are
    normal and the pairs many."""
    ratios = [on / off for on, off in zip(*rates, strict=True)]
    return statistics.median(ratios), math.sqrt(math.pi / 2 / len(ratios)) * statistics.stdev(ratios)


async def _run(target: str, pids: Sequence[int], callers: int, offset: int) -> dict[str, list[float]]:
    rates: dict[signal.Signals, list[float]] = {signal.SIGUSR1: [], signal.SIGUSR2: []}
    async with wire.callers(target, callers) as asks:
        calls = load.asking(asks, offset)
        # The first turn connects, and is not counted.
        await load.by_tasks(calls, _TURN_S)
        for pair in range(PAIRS):
            for switch in list(rates)[:: -1 if pair % 2 else 1]:
                for pid in pids:
                    os.kill(pid, switch)
                taken, elapsed = await load.by_tasks(calls, _TURN_S)
                rates[switch].append(len(taken) / elapsed)
        for pid in pids:
            os.kill(pid, signal.SIGUSR2)
    return {"on": rates[signal.SIGUSR2], "off": rates[signal.SIGUSR1]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="grpc://host:port of a query encoder, or gateway://host:port")
    parser.add_argument("--pids", type=int, nargs="+", required=True, help="the processes to switch")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--offset", type=int, default=0, help="queries to skip, so that runs do not repeat them")
    given = parser.parse_args()
    sys.stdout.write(json.dumps(asyncio.run(_run(given.target, given.pids, given.callers, given.offset))) + "\n")
