"""A load of single-query callers, in a process of its own: python -m tests.benchmarks.load … prints one JSON line."""

import argparse
import asyncio
import contextlib
import itertools
import json
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.benchmarks import texts, wire
from tests.benchmarks.figures import ROOT
from tests.benchmarks.wire import Ask


class LoadError(Exception):
    """A load could not be run to its end; the message says why."""


async def run(target: str, callers: int, seconds: float, offset: int) -> dict[str, Any]:
    """`callers` ask one after another for `seconds`."""
    async with wire.callers(target, callers) as asks:
        return summary(*await by_tasks(asking(asks, offset), seconds))


Call = Callable[[], Awaitable[Any]]


def asking(asks: Sequence[Ask], offset: int) -> list[Call]:
    """A call each, which asks for the next query of all, from the one at `offset` on."""
    questions = itertools.cycle(texts.queries(20_000)[offset:])

    def one(ask: Ask) -> Call:
        return lambda: ask(next(questions))

    return [one(ask) for ask in asks]


async def by_tasks(calls: Sequence[Call], seconds: float) -> tuple[list[float], float]:
    """Each of `calls` again and again for `seconds`, side by side: what each took, and all together."""
    taken: list[float] = []

    async def caller(call: Call, until: float) -> None:
        while (started := time.perf_counter()) < until:
            await call()
            taken.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(caller(call, started + seconds) for call in calls))
    return taken, time.perf_counter() - started


def by_threads(call: Callable[[], Any], callers: int, seconds: float) -> tuple[list[float], float]:
    """The same by `callers` threads. Raises the first error of any."""
    taken: list[float] = []
    failures: list[Exception] = []

    def caller(until: float) -> None:
        try:
            while (started := time.perf_counter()) < until:
                call()
                taken.append(time.perf_counter() - started)
        except Exception as error:
            failures.append(error)

    started = time.perf_counter()
    threads = [threading.Thread(target=caller, args=(started + seconds,)) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return taken, time.perf_counter() - started


def summary(latencies: Sequence[float], elapsed: float) -> dict[str, Any]:
    """What a load says of calls that took `latencies` seconds each, and `elapsed` all together."""
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "requests_per_s": len(latencies) / elapsed,
        "p50_ms": cuts[49] * 1000,
        "p99_ms": cuts[98] * 1000,
        "requests": len(latencies),
    }


async def measured(target: str, *, callers: int, seconds: float, offset: int = 0) -> dict[str, Any]:
    """The result of such a load."""
    options = ("--callers", str(callers), "--seconds", str(seconds), "--offset", str(offset))
    return await elsewhere("tests.benchmarks.load", target, *options)


async def elsewhere(module: str, target: str, *options: str) -> dict[str, Any]:
    """What the load `module` prints, run by another process: its interpreter is not the server's, nor the
    benchmark's. Raises `LoadError`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, target, *options),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, error = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        # A gRPC error ends with a line of its own that says nothing: ">".
        lines = [line for line in error.decode(errors="replace").splitlines() if len(line.strip()) > 1]
        lines = [line.strip() for line in lines if "details =" in line] or lines or ["nothing was said"]
        raise LoadError(f"the load on {target} failed: {lines[-1]}")
    result: dict[str, Any] = json.loads(out)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="grpc://host:port, infinity://host:port or triton://host:port")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--offset", type=int, default=0, help="queries to skip, so that runs do not repeat them")
    given = parser.parse_args()
    sys.stdout.write(json.dumps(asyncio.run(run(given.target, given.callers, given.seconds, given.offset))) + "\n")
