"""The running `vector_retrieval`, as jobs ask it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from aisle.retrieval.v1 import vector_retrieval_pb2_grpc
from numpy.typing import NDArray

from services.trainer import running
from services.trainer.progress import bar
from shared.rpc.client import Dependency
from shared.rpc.embeddings import pack

_OPTION = "--retrieval"
_SERVICE = "aisle.retrieval.v1.VectorRetrieval"
_QUERIES_A_CALL = 32
_TIMEOUT_S = 30.0


@asynccontextmanager
async def asked(target: str, option: str) -> AsyncIterator[tuple[Dependency, Any]]:
    """The service and its stub; see `running.asked`."""
    async with running.asked("vector_retrieval", _SERVICE, target, option) as service:
        yield service, vector_retrieval_pb2_grpc.VectorRetrievalStub(service.channel)


def search(
    target: str, queries: Sequence[str], depth: int, vectors: NDArray[np.float32] | None = None, version: str = ""
) -> list[list[str]]:
    """The first `depth` item ids of each query, best first: by words and `vectors` (queries, dimensions), which are of
    the model `version`; by words alone where there are none.

    Raises `JobError` when the service does not answer or holds vectors of another model.
    """
    return asyncio.run(_search(target, queries, depth, vectors, version))


async def _search(
    target: str, queries: Sequence[str], depth: int, vectors: NDArray[np.float32] | None, version: str
) -> list[list[str]]:
    found: list[list[str]] = []
    async with asked(target, _OPTION) as (service, stub):
        with bar(len(queries), done=0) as told:
            for start in range(0, len(queries), _QUERIES_A_CALL):
                part = slice(start, start + _QUERIES_A_CALL)
                request = pb.SearchRequest(texts=queries[part], mode=pb.SEARCH_MODE_LEXICAL, limit=depth)
                if vectors is not None:
                    request.embeddings.CopyFrom(pack(vectors[part], version))
                    request.mode = pb.SEARCH_MODE_HYBRID
                response = await service.call(stub.Search, request, timeout_s=_TIMEOUT_S)
                found += [[hit.item.id for hit in candidates.hits] for candidates in response.candidates]
                told.update(len(response.candidates))
    return found
