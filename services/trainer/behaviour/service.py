"""The running `user_events`, as jobs ask it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aisle.events.v1 import user_events_pb2_grpc

from services.trainer import running
from shared.rpc.client import Dependency

NAME = "user_events"
_SERVICE = "aisle.events.v1.UserEvents"
_REMEDY = ". What came is in the archive: run it again to go on"


@asynccontextmanager
async def asked(target: str) -> AsyncIterator[tuple[Dependency, "user_events_pb2_grpc.UserEventsAsyncStub"]]:
    """The service and its stub; see `running.asked`."""
    async with running.asked(NAME, _SERVICE, target, "--events", _REMEDY) as service:
        yield service, user_events_pb2_grpc.UserEventsStub(service.channel)
