"""The ports over gRPC."""

import time
from collections.abc import Sequence
from math import isfinite
from typing import Any, cast

from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.common.v1 import embeddings_pb2, model_pb2, priority_pb2, row_error_pb2
from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc, query_encoder_pb2, query_encoder_pb2_grpc
from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc
from aisle.retrieval.v1 import vector_retrieval_pb2, vector_retrieval_pb2_grpc

from services.gateway.breaker import Guard
from services.gateway.ports import (
    Candidate,
    EncodedItems,
    FilterPayload,
    Found,
    ItemPayload,
    Mode,
    Priority,
    Reranked,
    RowError,
    Stored,
    Vectors,
)
from shared.errors import AisleError, FieldViolation, InternalError, InvalidArgumentError, UnavailableError
from shared.rpc.client import Dependency

_MODES = {
    Mode.DENSE: vector_retrieval_pb2.SEARCH_MODE_DENSE,
    Mode.LEXICAL: vector_retrieval_pb2.SEARCH_MODE_LEXICAL,
    Mode.HYBRID: vector_retrieval_pb2.SEARCH_MODE_HYBRID,
}
_PRIORITIES = {
    Priority.INTERACTIVE: priority_pb2.PRIORITY_INTERACTIVE,
    Priority.BULK: priority_pb2.PRIORITY_BULK,
}

_KIND_TIMEOUT_S = 0.25
"""A re-ranker that has just scored says what it is in a few milliseconds."""
_MAX_KINDS = 8
"""Model versions remembered: during a rollout two answer."""


class _Client:
    """One dependency behind one guard. `renames` maps the callee's field paths to what the gateway's caller knows."""

    def __init__(self, dependency: Dependency, guard: Guard, renames: dict[str, str] | None = None) -> None:
        self._dependency = dependency
        self._guard = guard
        self._renames = renames or {}

    async def _call(self, method: Any, request: Any, timeout_s: float, guard: Guard | None = None) -> Any:
        try:
            return await (guard or self._guard).run(lambda: self._dependency.call(method, request, timeout_s=timeout_s))
        except InvalidArgumentError as error:
            raise self._callers_fault(error) from error

    def _callers_fault(self, error: InvalidArgumentError) -> AisleError:
        """`error` in the caller's terms; a bug where it is about something that the gateway itself made up."""
        known = [
            FieldViolation(self._renames[root] + v.field[len(root) :], v.description)
            for v in error.violations
            for root in self._renames
            if v.field == root or v.field.startswith((f"{root}.", f"{root}["))
        ]
        if known:
            return InvalidArgumentError(known)
        fields = ", ".join(v.field for v in error.violations)
        return InternalError(f"{self._dependency.name} refused what the gateway sent it ({fields})")


class QueryEncoderClient(_Client):
    """`QueryEncoderPort` over `aisle.encoder.v1.QueryEncoder`."""

    def __init__(self, dependency: Dependency, guard: Guard) -> None:
        super().__init__(dependency, guard, {"queries[0]": "query"})
        self._stub = query_encoder_pb2_grpc.QueryEncoderStub(dependency.channel)

    async def encode(self, text: str, *, timeout_s: float) -> Vectors:
        """One row, for `text`."""
        request = query_encoder_pb2.EncodeQueriesRequest(queries=[text], priority=priority_pb2.PRIORITY_INTERACTIVE)
        response: query_encoder_pb2.EncodeQueriesResponse = await self._call(
            self._stub.EncodeQueries, request, timeout_s
        )
        if response.errors:
            name = self._dependency.name
            raise UnavailableError(name, f"{name} could not encode this query ({response.errors[0].reason})")
        return _vectors(response.embeddings, 1, self._dependency.name)


class ItemEncoderClient(_Client):
    """`ItemEncoderPort` over `aisle.encoder.v1.ItemEncoder`."""

    def __init__(self, dependency: Dependency, guard: Guard) -> None:
        super().__init__(dependency, guard)
        self._stub = item_encoder_pb2_grpc.ItemEncoderStub(dependency.channel)

    async def encode(self, items: Sequence[ItemPayload], priority: Priority, *, timeout_s: float) -> EncodedItems:
        """One row an item."""
        request = item_encoder_pb2.EncodeItemsRequest(items=_items(items), priority=_PRIORITIES[priority])
        response: item_encoder_pb2.EncodeItemsResponse = await self._call(self._stub.EncodeItems, request, timeout_s)
        name = self._dependency.name
        return EncodedItems(
            _vectors(response.embeddings, len(items), name), _row_errors(response.errors, len(items), name)
        )


class RetrievalClient(_Client):
    """`RetrievalPort` over `aisle.retrieval.v1.VectorRetrieval`.

    Writes have a guard of their own: a store that is slow to write a large batch may well answer searches.
    Where both halves of a search are fused, a cosine has the weight `dense_weight`, 0 to 1, and a BM25 score the rest.
    """

    def __init__(self, dependency: Dependency, guard: Guard, write_guard: Guard, *, dense_weight: float) -> None:
        super().__init__(dependency, guard, {"filter": "filter", "texts[0]": "query"})
        self._writes = write_guard
        self._fusion = vector_retrieval_pb2.Fusion(
            linear=vector_retrieval_pb2.Linear(dense=dense_weight, lexical=1 - dense_weight)
        )
        self._stub = vector_retrieval_pb2_grpc.VectorRetrievalStub(dependency.channel)

    async def search(
        self,
        *,
        vector: Vectors | None,
        text: str | None,
        mode: Mode,
        filter_: FilterPayload | None,
        limit: int,
        exclude: Sequence[str] = (),
        timeout_s: float,
    ) -> Found:
        """The candidates of one query."""
        request = vector_retrieval_pb2.SearchRequest(
            embeddings=None if vector is None else _embeddings(vector),
            texts=() if text is None else (text,),
            mode=_MODES[mode],
            filter=cast("filter_pb2.Filter | None", filter_),
            limit=limit,
            fusion=self._fusion if mode is Mode.HYBRID else None,
            exclude_ids=exclude,
        )
        response: vector_retrieval_pb2.SearchResponse = await self._call(self._stub.Search, request, timeout_s)
        if len(response.candidates) != 1:
            raise InternalError(f"{self._dependency.name} answered {len(response.candidates)} queries of 1")
        return Found(
            [_candidate(hit) for hit in response.candidates[0].hits],
            response.generation,
            response.model_version,
            tuple(response.degraded),
        )

    async def get(self, item_id: str, *, with_vector: bool, timeout_s: float) -> Stored | None:
        """The item, or `None`."""
        request = vector_retrieval_pb2.GetItemsRequest(ids=[item_id], include_embeddings=with_vector)
        response: vector_retrieval_pb2.GetItemsResponse = await self._call(self._stub.GetItems, request, timeout_s)
        if not response.items:
            return None
        item = response.items[0]
        vector = _vectors(response.embeddings, 1, self._dependency.name) if with_vector else None
        return Stored(item, item.group_id, vector)

    async def upsert(self, items: Sequence[ItemPayload], vectors: Vectors, *, timeout_s: float) -> Sequence[RowError]:
        """The rows refused."""
        request = vector_retrieval_pb2.UpsertItemsRequest(items=_items(items), embeddings=_embeddings(vectors))
        response: vector_retrieval_pb2.UpsertItemsResponse = await self._call(
            self._stub.UpsertItems, request, timeout_s, self._writes
        )
        return _row_errors(response.errors, len(items), self._dependency.name)

    async def delete(self, ids: Sequence[str], *, timeout_s: float) -> int:
        """How many were there."""
        request = vector_retrieval_pb2.DeleteItemsRequest(ids=ids)
        response: vector_retrieval_pb2.DeleteItemsResponse = await self._call(
            self._stub.DeleteItems, request, timeout_s, self._writes
        )
        return response.deleted


class RerankerClient(_Client):
    """`RerankerPort` over `aisle.rerank.v1.Reranker`."""

    def __init__(self, dependency: Dependency, guard: Guard) -> None:
        super().__init__(dependency, guard)
        self._stub = reranker_pb2_grpc.RerankerStub(dependency.channel)
        self._kinds: dict[str, str] = {}

    async def rerank(self, query: str, items: Sequence[ItemPayload], *, timeout_s: float) -> Reranked:
        """One score an item."""
        request = reranker_pb2.RerankRequest(
            query=query, items=_items(items), priority=priority_pb2.PRIORITY_INTERACTIVE
        )
        started = time.monotonic()
        response: reranker_pb2.RerankResponse = await self._call(self._stub.Rerank, request, timeout_s)
        if len(response.scores) != len(items):
            name = self._dependency.name
            raise InternalError(f"{name} returned {len(response.scores)} scores for {len(items)} items")
        # A score that is not a number orders nothing: NaN is neither above nor below any other.
        scores = [s.score if s.HasField("score") and isfinite(s.score) else None for s in response.scores]
        left = timeout_s - (time.monotonic() - started)
        return Reranked(scores, response.model_version, await self._kind(response.model_version, left))

    async def _kind(self, version: str, timeout_s: float) -> str:
        """What kind of model `version` is: asked once a version; empty while it cannot be told."""
        known = self._kinds.get(version)
        if known is not None or timeout_s <= 0:
            return known or ""
        try:
            # Outside the guard: scores arrived, so a failure here must not speak against the re-ranker.
            response: model_pb2.GetModelResponse = await self._dependency.call(
                self._stub.GetModel, model_pb2.GetModelRequest(), timeout_s=min(timeout_s, _KIND_TIMEOUT_S)
            )
        except AisleError:
            return ""
        if len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        self._kinds[response.model.version] = response.model.kind
        return self._kinds.get(version, "")


def _items(items: Sequence[ItemPayload]) -> Sequence[item_pb2.Item]:
    return cast("Sequence[item_pb2.Item]", items)


def _embeddings(vectors: Vectors) -> embeddings_pb2.Embeddings:
    return embeddings_pb2.Embeddings(
        data=vectors.data,
        dimensions=vectors.dimensions,
        dtype=cast("embeddings_pb2.Dtype.ValueType", vectors.dtype),
        model_version=vectors.model_version,
    )


def _vectors(pb: embeddings_pb2.Embeddings, rows: int, name: str) -> Vectors:
    data = pb.data
    if not data or len(data) % rows:
        raise InternalError(f"{name} returned {len(data)} bytes of vectors for {rows} rows")
    return Vectors(data, rows, pb.dimensions, pb.dtype, pb.model_version)


def _row_errors(errors: Sequence[row_error_pb2.RowError], rows: int, name: str) -> list[RowError]:
    if any(error.row >= rows for error in errors):
        raise InternalError(f"{name} reported a row that was not sent")
    return [RowError(e.row, e.item_id, e.field, e.reason, e.message) for e in errors]


def _candidate(hit: vector_retrieval_pb2.Hit) -> Candidate:
    has = hit.HasField
    return Candidate(
        hit.item,
        hit.score,
        hit.dense_score if has("dense_score") else None,
        hit.dense_rank if has("dense_rank") else None,
        hit.lexical_score if has("lexical_score") else None,
        hit.lexical_rank if has("lexical_rank") else None,
        hit.item.group_id,
    )
