"""Which model the vectors of a running index are of."""

import asyncio

from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from aisle.retrieval.v1 import vector_retrieval_pb2_grpc

from services.trainer.errors import JobError
from shared.errors import AisleError
from shared.rpc.client import Dependency

_NAME = "aisle.retrieval.v1.VectorRetrieval"
_TIMEOUT_S = 10.0


def live_version(target: str) -> str:
    """The model version of the generation that is searched; empty for an index without one. `target`: host:port of
    `vector_retrieval`. Raises `JobError` when it does not answer."""
    return asyncio.run(_live_version(target))


async def _live_version(target: str) -> str:
    service = Dependency("vector_retrieval", _NAME, target)
    stub = vector_retrieval_pb2_grpc.VectorRetrievalStub(service.channel)
    try:
        status: pb.GetStatusResponse = await service.call(stub.GetStatus, pb.GetStatusRequest(), timeout_s=_TIMEOUT_S)
    except AisleError as error:
        raise JobError(f"--index {target}: {error}") from error
    finally:
        await service.close()
    return status.model_version
