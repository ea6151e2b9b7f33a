"""The log of a running `user_events`, brought into an archive: where the last run ended, it goes on."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
from aisle.events.v1 import event_pb2
from aisle.events.v1 import user_events_pb2 as pb
from google.protobuf import timestamp_pb2
from tqdm import tqdm

from services.trainer.behaviour import service
from services.trainer.behaviour.archive import SCHEMA, Archive
from shared.errors import DeadlineError, UnavailableError
from shared.rpc.status import from_rpc_error

if TYPE_CHECKING:
    # A class of the stubs' types alone.
    from aisle.events.v1.user_events_pb2_grpc import UserEventsAsyncStub

_PREFIX = "EVENT_TYPE_"
_TYPES = [
    kind
    for name, kind in event_pb2.EventType.items()
    # A search is known by the page that answered it, and what was typed need not leave the service.
    if name not in (f"{_PREFIX}UNSPECIFIED", f"{_PREFIX}SEARCH")
]
_STREAM_S = 300.0
"""After which a stream is opened anew: one that hangs is noticed, and a log of any length is read."""
_TRIES = 5
_WAIT_S = 1.0
"""Before the second try, and twice as long before each one after: half a minute in all, a restart of the service."""


def fetch(target: str, archive: Archive) -> int:
    """Appends what came to the log since the archive's last event; how many events that were.

    `target`: host:port of `user_events`. Raises `JobError` when it does not answer, or no longer: what came is kept.
    """
    return asyncio.run(_fetch(target, archive))


async def _fetch(target: str, archive: Archive) -> int:
    new = 0
    async with service.asked(target) as (_, stub):
        with archive.appending() as append, _Progress() as progress:
            async for page in _pages(stub, archive.cursor):
                append(pa.Table.from_pylist([_row(logged) for logged in page.events], SCHEMA), page.cursor)
                new += len(page.events)
                progress.show(page, new)
    return new


async def _pages(stub: "UserEventsAsyncStub", cursor: str) -> AsyncIterator[pb.StreamEventsResponse]:
    failures, ended = 0, False
    while not ended:
        request = pb.StreamEventsRequest(types=_TYPES, cursor=cursor)
        try:
            async for page in stub.StreamEvents(request, timeout=_STREAM_S):
                cursor, failures = page.cursor, 0
                yield page
            ended = True
        except grpc.aio.AioRpcError as failed:
            error = from_rpc_error(failed, service.NAME)
            failures += 1
            if failures == _TRIES or not isinstance(error, UnavailableError | DeadlineError):
                raise error from failed
            await asyncio.sleep(_WAIT_S * 2 ** (failures - 1))


def _row(logged: pb.LoggedEvent) -> dict[str, Any]:
    event = logged.event
    row: dict[str, Any] = {
        "type": event_pb2.EventType.Name(event.type).removeprefix(_PREFIX),
        "occurred_at": _micros(event.occurred_at),
        "arrived_at": _micros(logged.arrived_at),
        "user_key": logged.user_key or None,
        "session_key": logged.session_key or None,
        "item_id": event.item_id or None,
        "item_ids": list(logged.item_ids),
        "first_position": logged.first_position,
    }
    if event.HasField("attribution"):
        led = event.attribution
        position = led.position if led.HasField("position") else None
        row |= {
            "request_id": led.request_id or None,
            "surface": led.surface or None,
            "query": led.query or None,
            "position": position,
        }
    return row


def _micros(at: timestamp_pb2.Timestamp) -> int:
    return at.ToMicroseconds()


class _Progress:
    """How far the log is read, by the time of arrival: nobody knows how many events are left."""

    def __init__(self) -> None:
        self._bar = tqdm(total=1.0, bar_format="reading the log {l_bar}{bar}{postfix}", disable=None, leave=False)
        self._first: float | None = None

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, page: pb.StreamEventsResponse, events: int) -> None:
        if not page.events:
            return
        arrived = page.events[-1].arrived_at
        at = arrived.ToMicroseconds() / 1e6
        self._first = at if self._first is None else self._first
        self._bar.n = (at - self._first) / max(time.time() - self._first, 1e-9)
        self._bar.set_postfix_str(f"{events:,} events, up to {arrived.ToDatetime():%Y-%m-%d %H:%M}")
