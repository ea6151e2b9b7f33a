"""A shop's items as tests write and find them, in the words of the wire."""

import uuid

import numpy as np
from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.vector_retrieval.servicer import VectorRetrievalServicer
from shared.rpc import embeddings

MODEL = "model-1"
DIMENSIONS = 16


class Shop:
    """A few items of one test, apart from those of others by what their ids begin with."""

    def __init__(self, servicer: VectorRetrievalServicer) -> None:
        self.servicer = servicer
        self.prefix = uuid.uuid4().hex[:8]

    def id(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def item(self, name: str, title: str = "", **fields: object) -> item_pb2.Item:
        return item_pb2.Item(id=self.id(name), title=title or name, tags=[self.prefix], **fields)  # type: ignore[arg-type]

    async def upsert(
        self, *items: item_pb2.Item, vectors: np.ndarray | None = None, version: str = MODEL
    ) -> pb.UpsertItemsResponse:
        rows = vectors if vectors is not None else np.stack([direction(i) for i in range(len(items))])
        return await self.servicer.UpsertItems(
            pb.UpsertItemsRequest(items=items, embeddings=embeddings.pack(rows.astype(np.float32), version)), None
        )

    async def get(self, *names: str, vectors: bool = False) -> pb.GetItemsResponse:
        return await self.servicer.GetItems(
            pb.GetItemsRequest(ids=[self.id(n) for n in names], include_embeddings=vectors), None
        )

    async def search(self, **fields: object) -> pb.SearchResponse:
        """Among this test's items alone, and sees what was just written."""
        request = pb.SearchRequest(
            **{"limit": 10, "consistency": pb.CONSISTENCY_SESSION, "filter": self.mine(), **fields}  # type: ignore[arg-type]
        )
        return await self.servicer.Search(request, None)

    def mine(self) -> filter_pb2.Filter:
        return filter_pb2.Filter(text=filter_pb2.TextCondition(field="tags", values=[self.prefix]))

    def names(self, response: pb.SearchResponse, query: int = 0) -> list[str]:
        return [hit.item.id.removeprefix(f"{self.prefix}-") for hit in response.candidates[query].hits]


def direction(index: int) -> np.ndarray:
    """The unit vector along one axis."""
    return np.eye(DIMENSIONS, dtype=np.float32)[index]


def query(*rows: np.ndarray, version: str = MODEL) -> object:
    return embeddings.pack(np.stack(rows).astype(np.float32), version)
