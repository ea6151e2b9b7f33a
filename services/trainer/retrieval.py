"""The running `vector_retrieval`, as jobs ask it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aisle.retrieval.v1 import vector_retrieval_pb2_grpc

from services.trainer.errors import JobError
from services.trainer.settings import TrainerSettings
from shared.errors import AisleError
from shared.rpc.client import Dependency

_NAME = "aisle.retrieval.v1.VectorRetrieval"


@asynccontextmanager
async def asked(target: str, option: str) -> AsyncIterator[tuple[Dependency, Any]]:
    """The service at `target` (host:port), which `option` of the command line has named, and its stub.

    Within it, an error of the service is a `JobError` that says so.
    """
    service = Dependency("vector_retrieval", _NAME, target, TrainerSettings().mtls())  # type: ignore[call-arg]
    try:
        yield service, vector_retrieval_pb2_grpc.VectorRetrievalStub(service.channel)
    except AisleError as error:
        raise JobError(f"{option} {target}: {error}") from error
    finally:
        await service.close()
