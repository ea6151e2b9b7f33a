"""An index that changes its model, asked in the words of the wire."""

from datetime import UTC, datetime

import numpy as np
from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.vector_retrieval.servicer import VectorRetrievalServicer
from services.vector_retrieval.store import Store
from shared.rpc import embeddings

OLD, NEW = "model-1", "model-2"
OLD_SIZE, NEW_SIZE = 8, 6


def vectors(ids: list[str], size: int) -> np.ndarray:
    rows = [np.random.default_rng(abs(hash(i)) % 2**32).normal(size=size) for i in ids]
    return np.array(rows, dtype=np.float32).reshape(-1, size)


class Index:
    """One index of its own, asked in the words of the wire."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rpc = VectorRetrievalServicer(store)

    async def write(
        self, *ids: str, title: str = "title", brand: str = "", version: str = OLD, at: datetime | None = None
    ) -> pb.UpsertItemsResponse:
        items = [item_pb2.Item(id=i, title=title, brand=brand) for i in ids]
        for item in items:
            item.updated_at.FromDatetime(at or datetime.now(UTC))
        rows = vectors(list(ids), OLD_SIZE if version == OLD else NEW_SIZE)
        return await self.rpc.UpsertItems(
            pb.UpsertItemsRequest(items=items, embeddings=embeddings.pack(rows, version)), None
        )

    async def delete(self, *ids: str) -> int:
        return (await self.rpc.DeleteItems(pb.DeleteItemsRequest(ids=ids), None)).deleted

    async def titles(self, *ids: str) -> dict[str, str]:
        found = await self.rpc.GetItems(pb.GetItemsRequest(ids=ids), None)
        return {item.id: item.title for item in found.items}

    async def found(self, version: str) -> tuple[dict[str, str], pb.SearchResponse]:
        size = OLD_SIZE if version == OLD else NEW_SIZE
        answer = await self.rpc.Search(
            pb.SearchRequest(
                embeddings=embeddings.pack(np.ones((1, size), dtype=np.float32), version),
                limit=100,
                consistency=pb.CONSISTENCY_STRONG,
            ),
            None,
        )
        return {hit.item.id: hit.item.title for hit in answer.candidates[0].hits}, answer

    async def nearest(self, limit: int, brand: str = "", *, exact: bool = False) -> list[str]:
        """To one vector of the new model."""
        condition = filter_pb2.Filter(text=filter_pb2.TextCondition(field="brand", values=[brand]))
        answer = await self.rpc.Search(
            pb.SearchRequest(
                embeddings=embeddings.pack(np.ones((1, NEW_SIZE), dtype=np.float32), NEW),
                filter=condition if brand else None,
                limit=limit,
                exact=exact,
                consistency=pb.CONSISTENCY_STRONG,
            ),
            None,
        )
        return [hit.item.id for hit in answer.candidates[0].hits]

    async def create(self, **fields: object) -> str:
        made = await self.rpc.CreateGeneration(
            pb.CreateGenerationRequest(
                model_version=NEW,
                dimensions=NEW_SIZE,
                **(fields or {"hnsw_m": 8}),  # type: ignore[arg-type]
            ),
            None,
        )
        assert made.generation.state == pb.GENERATION_STATE_BUILDING
        assert made.generation.index_type == fields.get("index_type", pb.INDEX_TYPE_HNSW)
        return made.generation.name

    async def pending(self, name: str, source: str = "", size: int = 3) -> list[item_pb2.Item]:
        items: list[item_pb2.Item] = []
        token = ""
        while True:
            page = await self.rpc.ListItems(
                pb.ListItemsRequest(generation=source, missing_from=name, page_size=size, page_token=token), None
            )
            items.extend(page.items)
            token = page.next_page_token
            if not token:
                return items

    async def load(self, name: str, items: list[item_pb2.Item], version: str = NEW) -> int:
        size = OLD_SIZE if version == OLD else NEW_SIZE
        rows = vectors([item.id for item in items], size)
        response = await self.rpc.UpsertItems(
            pb.UpsertItemsRequest(items=items, embeddings=embeddings.pack(rows, version), generation=name), None
        )
        return response.outdated

    async def catch_up(self, name: str) -> int:
        items = await self.pending(name)
        if items:
            await self.load(name, items)
        return len(items)

    async def verify(self, name: str) -> pb.Verification:
        return (await self.rpc.VerifyGeneration(pb.VerifyGenerationRequest(generation=name), None)).verification

    async def promote(self, name: str, **fields: object) -> pb.PromoteGenerationResponse:
        return await self.rpc.PromoteGeneration(
            pb.PromoteGenerationRequest(generation=name, **fields),  # type: ignore[arg-type]
            None,
        )

    async def states(self) -> dict[str, tuple[int, int]]:
        listed = await self.rpc.ListGenerations(pb.ListGenerationsRequest(), None)
        return {g.model_version: (g.state, g.items) for g in listed.generations}
