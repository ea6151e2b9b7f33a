"""Which model the vectors of a running index are of."""

import asyncio

from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.trainer import retrieval

_TIMEOUT_S = 10.0


def live_version(target: str) -> str:
    """The model version of the generation that is searched; empty for an index without one. `target`: host:port of
    `vector_retrieval`. Raises `JobError` when it does not answer."""
    return asyncio.run(_live_version(target))


async def _live_version(target: str) -> str:
    async with retrieval.asked(target, "--index") as (service, stub):
        status: pb.GetStatusResponse = await service.call(stub.GetStatus, pb.GetStatusRequest(), timeout_s=_TIMEOUT_S)
    return status.model_version
