"""A load on user_events, in a process of its own: python -m tests.benchmarks.event_load … prints one JSON line."""

import argparse
import asyncio
import json
import random
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from aisle.events.v1 import event_pb2, user_events_pb2_grpc
from aisle.events.v1 import user_events_pb2 as pb

from tests.benchmarks import load

USERS = 20_000
ITEMS = 10_000

_RETRY_S = 0.05
_T = event_pb2.EventType
_KINDS = (
    *(_T.EVENT_TYPE_VIEW,) * 8,
    *(_T.EVENT_TYPE_CLICK,) * 6,
    *(_T.EVENT_TYPE_SEARCH,) * 3,
    *(_T.EVENT_TYPE_ADD_TO_CART,) * 2,
    _T.EVENT_TYPE_PURCHASE,
)
"""What shoppers do, roughly as often as they do it."""

Call = Callable[[Any], Awaitable[int]]
"""One call; what it was good for."""


def user(number: int) -> str:
    """The id of a user."""
    return f"user-{number}"


def event(rng: random.Random) -> event_pb2.Event:
    """An event of some user with some item, a few of which most is done with."""
    kind = rng.choice(_KINDS)
    made = event_pb2.Event(
        id=str(uuid.UUID(int=rng.getrandbits(128))),
        type=kind,
        user_id=user(rng.randrange(USERS)),
        session_id=f"visit-{rng.randrange(10 * USERS)}",
        properties={"device": "phone"},
    )
    if kind == _T.EVENT_TYPE_SEARCH:
        made.query = "kids bunk bed with stairs"
    else:
        made.item_id = f"sku-{int(ITEMS * rng.random() ** 3)}"
    return made


def writing(batch: int) -> Call:
    """Writes `batch` new events; good for as many."""
    rng = random.Random()

    async def call(stub: Any) -> int:
        request = pb.WriteEventsRequest(events=[event(rng) for _ in range(batch)])
        while True:
            try:
                return int((await stub.WriteEvents(request, timeout=30)).accepted)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                await asyncio.sleep(_RETRY_S)

    return call


def reading(limit: int) -> Call:
    """Reads the history of some user; good for the events in it."""
    rng = random.Random()

    async def call(stub: Any) -> int:
        request = pb.GetHistoryRequest(user_id=user(rng.randrange(USERS)), limit=limit)
        return len((await stub.GetHistory(request, timeout=30)).events)

    return call


async def run(target: str, call: Call, callers: int, seconds: float) -> dict[str, Any]:
    """`callers` call one after another for `seconds`, over one channel as a gateway's."""
    done = 0
    async with grpc.aio.insecure_channel(target) as channel:
        stub = user_events_pb2_grpc.UserEventsStub(channel)
        await call(stub)

        async def counted() -> None:
            nonlocal done
            # Not `done += await …`, which would read it before the others have added to it.
            good_for = await call(stub)
            done += good_for

        taken, elapsed = await load.by_tasks([counted] * callers, seconds)
    return {**load.summary(taken, elapsed), "done_per_s": done / elapsed}


async def measured(target: str, kind: str, size: int, *, callers: int, seconds: float) -> dict[str, Any]:
    """The result of a load run by another process: its interpreter is not the service's, nor the benchmark's."""
    return await load.elsewhere(
        "tests.benchmarks.event_load",
        target,
        *("--kind", kind, "--size", str(size), "--callers", str(callers), "--seconds", str(seconds)),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="host:port")
    parser.add_argument("--kind", choices=["write", "read"], required=True)
    parser.add_argument("--size", type=int, required=True, help="events a request, or of a history")
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    wanted = writing(given.size) if given.kind == "write" else reading(given.size)
    sys.stdout.write(json.dumps(asyncio.run(run(given.target, wanted, given.callers, given.seconds))) + "\n")
