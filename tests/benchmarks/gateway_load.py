"""A load on the gateway, in a process of its own: python -m tests.benchmarks.gateway_load … prints one JSON line.

Closed (`--callers`): each caller asks when it has its answer, which finds the most there is to get. Open (`--rate`):
requests arrive at random moments (Poisson) whatever became of those before, as those of many shoppers do, and each
is timed from the moment it was due. A closed load slows down with what it measures, and so leaves out of the
percentiles those that would have waited ("coordinated omission": G. Tene, How NOT to Measure Latency, 2013; Schroeder,
Wierman & Harchol-Balter, Open Versus Closed: A Cautionary Tale, NSDI 2006).
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc
from aisle.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from google.rpc import error_details_pb2, status_pb2

from shared.rpc.tls import channel_credentials
from shared.tls import TlsFiles
from tests.benchmarks import load, texts

PATIENCE_S = 1.0
"""Deadline of every call: after a second a train of thought is broken (J. Nielsen, Usability Engineering, ch. 5)."""
USERS = 200
_FIRST_ANSWER_S = 30.0
STAGES = ("history", "encode", "lookup", "retrieve", "browse", "stats", "rerank")

_LEFT_OUT = gateway_pb2.DEGRADED_REASON_LEXICAL_UNSUPPORTED
"""Of a store without words it is no loss under load."""

Call = Callable[[float], Awaitable[Any]]
"""One call that may take so many seconds."""


def user(number: int) -> str:
    """The id of a shopper."""
    return f"shopper-{number}"


def searching(stub: Any, offset: int) -> Call:
    """Searches for one query after another."""
    questions = itertools.cycle(texts.queries(20_000)[offset:])
    return lambda timeout_s: stub.Search(gateway_pb2.SearchRequest(query=next(questions)), timeout=timeout_s)


def recommending(stub: Any, offset: int) -> Call:
    """Recommends to one known shopper after another."""
    users = itertools.cycle(user((offset + at) % USERS) for at in range(USERS))
    return lambda timeout_s: stub.Recommend(gateway_pb2.RecommendRequest(user_id=next(users)), timeout=timeout_s)


CALLS = {"search": searching, "recommend": recommending}


@dataclass
class Tally:
    """What became of calls."""

    patience_s: float = PATIENCE_S
    seconds: list[float] = field(default_factory=list)
    """Of calls answered."""
    own_ms: list[float] = field(default_factory=list)
    """Of each answer what no downstream call took, as its caller sees it."""
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    good: int = 0
    """Answered in full, within `patience_s` of being due."""
    degraded: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    """By status and reason."""
    without_reason: int = 0
    """Refused by the server without one."""

    async def note(self, call: Call, due: float) -> None:
        """One call, due at `due` (`time.perf_counter`)."""
        try:
            answer = await call(max(due + self.patience_s - time.perf_counter(), 0.001))
        except grpc.aio.AioRpcError as error:
            self._failed(error)
            return
        taken = time.perf_counter() - due
        self.seconds.append(taken)
        left_out = [one.reason for one in answer.info.degraded if one.reason != _LEFT_OUT]
        self.degraded.update(map(gateway_pb2.DegradedReason.Name, left_out))
        self.good += bool(answer.results) and not left_out and taken <= self.patience_s
        timings = {timing.stage: timing.milliseconds for timing in answer.info.timings}
        self.own_ms.append(taken * 1000 - sum(timings.get(stage, 0.0) for stage in STAGES))
        for stage, milliseconds in timings.items():
            self.stages_ms.setdefault(stage, []).append(milliseconds)

    def _failed(self, error: grpc.aio.AioRpcError) -> None:
        reason = reason_of(error)
        self.failed[f"{error.code().name} {reason}".strip()] += 1
        # A deadline that passes at the caller's is no refusal: nobody said anything.
        if not reason and error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            self.without_reason += 1

    def told(self, elapsed: float) -> dict[str, Any]:
        """In numbers."""
        return {
            **load.summary(self.seconds, elapsed),
            "good_per_s": self.good / elapsed,
            "own_p50_ms": statistics.median(self.own_ms),
            "stages_p50_ms": {stage: statistics.median(taken) for stage, taken in self.stages_ms.items()},
            "degraded": self.degraded,
            "failed": self.failed,
            "without_reason": self.without_reason,
        }


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """`google.rpc.ErrorInfo.reason`; empty where there is none."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return _reason(value)
    return ""


@lru_cache(maxsize=1024)
def _reason(details: bytes) -> str:
    """Of thousands that are refused alike, read once: what the load takes is not left for what it measures."""
    info = error_details_pb2.ErrorInfo()
    return info.reason if any(one.Unpack(info) for one in status_pb2.Status.FromString(details).details) else ""


async def closed(call: Call, callers: int, seconds: float, patience_s: float) -> dict[str, Any]:
    """`callers` call one after another for `seconds`."""
    tally = Tally(patience_s)
    _, elapsed = await load.by_tasks([lambda: tally.note(call, time.perf_counter())] * callers, seconds)
    return tally.told(elapsed)


async def opened(call: Call, rate: float, seconds: float, patience_s: float, seed: int) -> dict[str, Any]:
    """`rate` calls a second on average for `seconds`, after a second that is not counted."""
    arrivals = random.Random(seed)
    tally, warming, late = Tally(patience_s), Tally(patience_s), []
    due = time.perf_counter()
    counted_from, until = due + 1, due + 1 + seconds
    tasks: set[asyncio.Task[None]] = set()
    while (due := due + arrivals.expovariate(rate)) < until:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        late.append(time.perf_counter() - due)
        tasks.add(asyncio.create_task((tally if due >= counted_from else warming).note(call, due)))
        # Those that have ended are let go of.
        if len(tasks) > 4096:
            tasks = {task for task in tasks if not task.done()}
    await asyncio.gather(*tasks)
    return {**tally.told(seconds), "sent_late_p99_ms": statistics.quantiles(late, n=100)[98] * 1000}


async def run(given: argparse.Namespace) -> dict[str, Any]:
    """The load, closed where there is no `rate`; with the seconds of CPU that it took."""
    async with _channel(given.target, given.tls) as channel:
        call = CALLS[given.what](gateway_pb2_grpc.GatewayStub(channel), given.offset)
        await _answered(call)
        used = time.process_time()
        if given.rate:
            result = await opened(call, given.rate, given.seconds, given.patience, given.offset)
        else:
            result = await closed(call, given.callers, given.seconds, given.patience)
        return {**result, "client_cpu_s": time.process_time() - used}


async def _answered(call: Call) -> None:
    """The first call connects; after a flood, what failed in it may still be given time to recover."""
    until = time.monotonic() + _FIRST_ANSWER_S
    while True:
        try:
            await call(_FIRST_ANSWER_S)
        except grpc.aio.AioRpcError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.5)
        else:
            return


def _channel(target: str, tls: list[Path] | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target)
    return grpc.aio.secure_channel(target, channel_credentials(TlsFiles(*tls).read()))


class Loads:
    """Loads on one gateway that each begin where another part of the queries is."""

    def __init__(self, target: str, seconds: float, tls: TlsFiles | None = None) -> None:
        self._target = target
        self._tls = [] if tls is None else ["--tls", str(tls.certificate), str(tls.key), str(tls.authority)]
        self._seconds = seconds
        self._offsets = itertools.count(0, 977)

    async def of(self, what: str = "search", **options: float) -> dict[str, Any]:
        """The result of one: of so many `callers`, or of a `rate` of calls a second; see the flags of the module."""
        told = {"what": what, "seconds": self._seconds, "offset": next(self._offsets) % 15_000, **options}
        flags = [part for name, value in told.items() for part in (f"--{name}", str(value))]
        return await load.elsewhere("tests.benchmarks.gateway_load", self._target, *flags, *self._tls)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="host:port")
    parser.add_argument("--what", choices=CALLS, default="search")
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0, help="calls a second, whatever becomes of them; 0 = closed")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds; the deadline of every call")
    parser.add_argument("--tls", nargs=3, type=Path, metavar=("CERTIFICATE", "KEY", "CA"), help="PEM files; mTLS")
    parser.add_argument("--offset", type=int, default=0, help="queries to skip, so that runs do not repeat them")
    sys.stdout.write(json.dumps(asyncio.run(run(parser.parse_args()))) + "\n")
