"""The running `user_events`, as jobs ask it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aisle.events.v1 import user_events_pb2_grpc

from services.trainer.errors import JobError
from services.trainer.settings import TrainerSettings
from shared.errors import AisleError
from shared.rpc.client import Dependency

NAME = "user_events"
_SERVICE = "aisle.events.v1.UserEvents"


@asynccontextmanager
async def asked(target: str) -> AsyncIterator[tuple[Dependency, "user_events_pb2_grpc.UserEventsAsyncStub"]]:
    """The service at `target` (host:port), and its stub. Within it, an error of the service is a `JobError`."""
    service = Dependency(NAME, _SERVICE, target, TrainerSettings().mtls())  # type: ignore[call-arg]
    try:
        yield service, user_events_pb2_grpc.UserEventsStub(service.channel)
    except AisleError as error:
        raise JobError(f"--events {target}: {error}. What came is in the archive: run it again to go on") from error
    finally:
        await service.close()
