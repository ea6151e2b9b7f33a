"""The gRPC face of the store: proto ↔ domain, nothing else."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from aisle.catalog.v1 import item_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from aisle.retrieval.v1 import vector_retrieval_pb2_grpc

from services.vector_retrieval import wire
from services.vector_retrieval.search import Consistency
from services.vector_retrieval.store import Store
from shared.rpc import embeddings


class VectorRetrievalServicer(vector_retrieval_pb2_grpc.VectorRetrievalServicer):
    """Serves aisle.retrieval.v1.VectorRetrieval."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def UpsertItems(self, request: pb.UpsertItemsRequest, context: Any) -> pb.UpsertItemsResponse:
        """Adds or replaces items."""
        # On a thread: checking a thousand items takes tens of milliseconds, in which others want their answers.
        upsert = await asyncio.to_thread(wire.upsert_from_proto, request, datetime.now(UTC))
        refused = await self._store.upsert(upsert.rows, upsert.model_version)
        errors = upsert.errors + [
            wire.row_error(upsert.positions[index], upsert.rows[index].item.id, broken)
            for index, broken in refused.items()
        ]
        return pb.UpsertItemsResponse(
            accepted=len(upsert.rows) - len(refused), errors=sorted(errors, key=lambda error: error.row)
        )

    async def DeleteItems(self, request: pb.DeleteItemsRequest, context: Any) -> pb.DeleteItemsResponse:
        """Removes items."""
        return pb.DeleteItemsResponse(deleted=await self._store.delete(wire.ids_from_proto(request.ids)))

    async def GetItems(self, request: pb.GetItemsRequest, context: Any) -> pb.GetItemsResponse:
        """Reads items by id."""
        found = await self._store.get(
            wire.ids_from_proto(request.ids),
            vectors=request.include_embeddings,
            consistency=wire.consistency_from_proto(request.consistency, Consistency.SESSION),
        )
        response = pb.GetItemsResponse(items=map(item_pb2.Item.FromString, found.payloads))
        if found.vectors is not None:
            response.embeddings.CopyFrom(embeddings.pack(found.vectors, found.model_version))
        return response

    async def Search(self, request: pb.SearchRequest, context: Any) -> pb.SearchResponse:
        """Finds the best candidates for each query of the batch."""
        query = wire.query_from_proto(request)
        return wire.answer_to_proto(await self._store.search(query), query.facets)

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        """What the index holds and what its store can do."""
        return wire.status_to_proto(await self._store.status())
