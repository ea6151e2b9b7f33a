"""The running `vector_retrieval`, as jobs ask it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aisle.retrieval.v1 import vector_retrieval_pb2_grpc

from services.trainer import running
from shared.rpc.client import Dependency

_SERVICE = "aisle.retrieval.v1.VectorRetrieval"


@asynccontextmanager
async def asked(target: str, option: str) -> AsyncIterator[tuple[Dependency, Any]]:
    """The service and its stub; see `running.asked`."""
    async with running.asked("vector_retrieval", _SERVICE, target, option) as service:
        yield service, vector_retrieval_pb2_grpc.VectorRetrievalStub(service.channel)
