"""The gRPC face of the store: proto ↔ domain, nothing else."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from aisle.catalog.v1 import item_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from aisle.retrieval.v1 import vector_retrieval_pb2_grpc

from services.vector_retrieval import wire, wire_browse, wire_generations
from services.vector_retrieval.calls import MANY_HITS
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
        outdated = 0
        if request.generation:
            refused, outdated = await self._store.load(
                upsert.rows, upsert.model_version, request.generation, wire.same_item
            )
        else:
            refused = await self._store.upsert(upsert.rows, upsert.model_version)
        errors = upsert.errors + [
            wire.row_error(upsert.positions[index], upsert.rows[index].item.id, broken)
            for index, broken in refused.items()
        ]
        return pb.UpsertItemsResponse(
            accepted=len(upsert.rows) - len(refused),
            errors=sorted(errors, key=lambda error: error.row),
            outdated=outdated,
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
        answer = await self._store.search(query)
        if sum(map(len, answer.candidates)) > MANY_HITS:
            return await asyncio.to_thread(wire.answer_to_proto, answer, query.facets)
        return wire.answer_to_proto(answer, query.facets)

    async def BrowseItems(self, request: pb.BrowseItemsRequest, context: Any) -> pb.BrowseItemsResponse:
        """Items that meet a filter, the most popular first."""
        return wire_browse.browsed_to_proto(await self._store.browse(wire_browse.browse_from_proto(request)))

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        """What the index holds and what its store can do."""
        return wire.status_to_proto(await self._store.status())

    async def CreateGeneration(self, request: pb.CreateGenerationRequest, context: Any) -> pb.CreateGenerationResponse:
        """Makes an empty generation for another model."""
        made = await self._store.create_generation(
            *wire_generations.new_generation_from_proto(request, self._store.default_index)
        )
        return pb.CreateGenerationResponse(generation=wire_generations.generation_to_proto(made, self._store.roles, 0))

    async def ListGenerations(self, request: pb.ListGenerationsRequest, context: Any) -> pb.ListGenerationsResponse:
        """All generations, the newest first."""
        listed, roles = await self._store.list_generations()
        return pb.ListGenerationsResponse(
            generations=[wire_generations.generation_to_proto(g, roles, items) for g, items in listed]
        )

    async def ListItems(self, request: pb.ListItemsRequest, context: Any) -> pb.ListItemsResponse:
        """A page of items in the order of their ids."""
        size = wire_generations.page_size_from_proto(request.page_size)
        page = await self._store.list_items(request.generation, request.missing_from, size, request.page_token)
        return pb.ListItemsResponse(
            items=map(item_pb2.Item.FromString, page.payloads), next_page_token=page.after, looked_at=page.looked_at
        )

    async def VerifyGeneration(self, request: pb.VerifyGenerationRequest, context: Any) -> pb.VerifyGenerationResponse:
        """How a generation compares with the live one."""
        options = wire_generations.options_from_proto(request.options)
        seen = await self._store.lifecycle.verify(request.generation, options, await self._store.capabilities())
        return pb.VerifyGenerationResponse(verification=wire_generations.verification_to_proto(seen))

    async def PromoteGeneration(
        self, request: pb.PromoteGenerationRequest, context: Any
    ) -> pb.PromoteGenerationResponse:
        """Makes a generation the live one."""
        promoted, seen = await self._store.lifecycle.promote(
            request.generation,
            wire_generations.options_from_proto(request.options),
            await self._store.capabilities(),
            force=request.force,
        )
        return pb.PromoteGenerationResponse(
            generation=wire_generations.generation_to_proto(promoted, self._store.roles, seen.items if seen else 0),
            verification=wire_generations.verification_to_proto(seen) if seen else None,
        )

    async def RollbackGeneration(
        self, request: pb.RollbackGenerationRequest, context: Any
    ) -> pb.RollbackGenerationResponse:
        """Makes the previous generation the live one again."""
        live = await self._store.lifecycle.rollback(await self._store.capabilities(), force=request.force)
        return pb.RollbackGenerationResponse(
            generation=wire_generations.generation_to_proto(live, self._store.roles, 0)
        )

    async def DropGeneration(self, request: pb.DropGenerationRequest, context: Any) -> pb.DropGenerationResponse:
        """Deletes a generation that is not live."""
        await self._store.lifecycle.drop(request.generation)
        return pb.DropGenerationResponse()
