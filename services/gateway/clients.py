"""The ports over gRPC."""

import time
from collections.abc import Collection, Sequence
from math import isfinite

from aisle.common.v1 import embeddings_pb2, model_pb2, priority_pb2
from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc, query_encoder_pb2, query_encoder_pb2_grpc
from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc
from aisle.retrieval.v1 import vector_retrieval_pb2, vector_retrieval_pb2_grpc

from services.gateway import wire
from services.gateway.breaker import Guard
from services.gateway.clients_base import Client
from services.gateway.ports import (
    LATE_INTERACTION,
    Candidate,
    EncodedItems,
    EncodedText,
    EncodedUsers,
    EventType,
    FilterPayload,
    Found,
    ItemPayload,
    Mode,
    Priority,
    Reranked,
    RowError,
    Stored,
    StoredItems,
    TokensPayload,
    UserAction,
    UserModel,
    Vectors,
)
from shared.errors import AisleError, InternalError, InvalidArgumentError, UnavailableError
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
_ACTIONS = {
    EventType.SEARCH: query_encoder_pb2.USER_ACTION_TYPE_SEARCH,
    EventType.VIEW: query_encoder_pb2.USER_ACTION_TYPE_VIEW,
    EventType.CLICK: query_encoder_pb2.USER_ACTION_TYPE_CLICK,
    EventType.ADD_TO_CART: query_encoder_pb2.USER_ACTION_TYPE_ADD_TO_CART,
    EventType.PURCHASE: query_encoder_pb2.USER_ACTION_TYPE_PURCHASE,
}
_USER_MODELS = {
    UserModel.WEIGHTED_MEAN: query_encoder_pb2.USER_MODEL_WEIGHTED_MEAN,
    UserModel.TEXT: query_encoder_pb2.USER_MODEL_TEXT,
}
_USER_MODELS_BACK = {number: model for model, number in _USER_MODELS.items()}

_KIND_TIMEOUT_S = 0.25
"""A re-ranker that has just scored says what it is in a few milliseconds."""
_MAX_KINDS = 8
"""Model versions remembered: during a rollout two answer."""


class QueryEncoderClient(Client):
    """`QueryEncoderPort` over `aisle.encoder.v1.QueryEncoder`."""

    def __init__(self, dependency: Dependency, guard: Guard) -> None:
        super().__init__(dependency, guard, {"queries[0]": "query"})
        self._stub = query_encoder_pb2_grpc.QueryEncoderStub(dependency.channel)

    async def encode(self, text: str, *, with_tokens: bool = False, timeout_s: float) -> EncodedText:
        """One row, for `text`."""
        request = query_encoder_pb2.EncodeQueriesRequest(
            queries=[text], priority=priority_pb2.PRIORITY_INTERACTIVE, include_token_embeddings=with_tokens
        )
        response: query_encoder_pb2.EncodeQueriesResponse = await self._call(
            self._stub.EncodeQueries, request, timeout_s
        )
        if response.errors:
            name = self._dependency.name
            raise UnavailableError(name, f"{name} could not encode this query ({response.errors[0].reason})")
        vector = wire.vectors(response.embeddings, 1, self._dependency.name)
        # An encoder of before this field, or without such vectors, leaves it empty.
        return EncodedText(vector, response.token_embeddings[0] if response.token_embeddings else None)

    async def encode_users(
        self,
        histories: Sequence[Sequence[UserAction]],
        item_vectors: Vectors | None,
        model: UserModel | None = None,
        *,
        timeout_s: float,
    ) -> EncodedUsers:
        """One row a history."""
        request = query_encoder_pb2.EncodeUsersRequest(
            users=[query_encoder_pb2.UserHistory(actions=map(_action, history)) for history in histories],
            item_embeddings=None if item_vectors is None else wire.embeddings(item_vectors),
            model=query_encoder_pb2.USER_MODEL_UNSPECIFIED if model is None else _USER_MODELS[model],
            priority=priority_pb2.PRIORITY_INTERACTIVE,
        )
        response: query_encoder_pb2.EncodeUsersResponse = await self._call(self._stub.EncodeUsers, request, timeout_s)
        rows, name = len(histories), self._dependency.name
        if response.model not in _USER_MODELS_BACK:
            raise InternalError(f"{name} did not say by which model it encoded users")
        return EncodedUsers(
            wire.vectors(response.embeddings, rows, name),
            _USER_MODELS_BACK[response.model],
            wire.row_errors(response.errors, rows, name),
        )


class ItemEncoderClient(Client):
    """`ItemEncoderPort` over `aisle.encoder.v1.ItemEncoder`."""

    def __init__(self, dependency: Dependency, guard: Guard) -> None:
        super().__init__(dependency, guard)
        self._stub = item_encoder_pb2_grpc.ItemEncoderStub(dependency.channel)

    async def encode(self, items: Sequence[ItemPayload], priority: Priority, *, timeout_s: float) -> EncodedItems:
        """One row an item."""
        request = item_encoder_pb2.EncodeItemsRequest(items=wire.items(items), priority=_PRIORITIES[priority])
        response: item_encoder_pb2.EncodeItemsResponse = await self._call(self._stub.EncodeItems, request, timeout_s)
        name = self._dependency.name
        return EncodedItems(
            wire.vectors(response.embeddings, len(items), name), wire.row_errors(response.errors, len(items), name)
        )


class RetrievalClient(Client):
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
        outside_groups: Collection[str] = (),
        with_vectors: bool = False,
        timeout_s: float,
    ) -> Found:
        """The candidates of one query."""
        given = wire.filter_(filter_)
        request = vector_retrieval_pb2.SearchRequest(
            embeddings=None if vector is None else wire.embeddings(vector),
            texts=() if text is None else (text,),
            mode=_MODES[mode],
            filter=wire.filter_outside(filter_, outside_groups),
            limit=limit,
            fusion=self._fusion if mode is Mode.HYBRID else None,
            exclude_ids=exclude,
            include_embeddings=with_vectors,
        )
        response: vector_retrieval_pb2.SearchResponse
        try:
            response = await self._call(self._stub.Search, request, timeout_s)
        except InvalidArgumentError:
            if given is None or not outside_groups:
                raise
            # A filter as large as filters may be takes no condition more, and of one at fault callers know the paths
            # as they sent it.
            request.filter.CopyFrom(given)
            response = await self._call(self._stub.Search, request, timeout_s)
        if len(response.candidates) != 1:
            raise InternalError(f"{self._dependency.name} answered {len(response.candidates)} queries of 1")
        hits = response.candidates[0].hits
        return Found(
            [_candidate(hit) for hit in hits],
            response.generation,
            response.model_version,
            tuple(response.degraded),
            self._rows(response.candidates[0].embeddings, len(hits)) if with_vectors else None,
        )

    async def browse(
        self,
        *,
        filter_: FilterPayload | None,
        ids: Sequence[str] = (),
        limit: int,
        exclude: Sequence[str] = (),
        with_vectors: bool = False,
        timeout_s: float,
    ) -> Found:
        """The most popular items that meet the filter."""
        request = vector_retrieval_pb2.BrowseItemsRequest(
            filter=wire.filter_among(filter_, ids),
            limit=limit,
            exclude_ids=exclude,
            include_embeddings=with_vectors,
        )
        response: vector_retrieval_pb2.BrowseItemsResponse = await self._call(
            self._stub.BrowseItems, request, timeout_s
        )
        return Found(
            [Candidate(item.id, item, item.popularity, group_id=item.group_id) for item in response.items],
            response.generation,
            response.model_version,
            vectors=self._rows(response.embeddings, len(response.items)) if with_vectors else None,
        )

    async def get(self, item_id: str, *, with_vector: bool, timeout_s: float) -> Stored | None:
        """The item, or `None`."""
        request = vector_retrieval_pb2.GetItemsRequest(ids=[item_id], include_embeddings=with_vector)
        response: vector_retrieval_pb2.GetItemsResponse = await self._call(self._stub.GetItems, request, timeout_s)
        if not response.items:
            return None
        item = response.items[0]
        vector = wire.vectors(response.embeddings, 1, self._dependency.name) if with_vector else None
        return Stored(item, item.group_id, vector, item.id, item.title)

    async def get_many(self, ids: Sequence[str], *, with_vectors: bool, timeout_s: float) -> StoredItems:
        """The items that are there."""
        request = vector_retrieval_pb2.GetItemsRequest(ids=ids, include_embeddings=with_vectors)
        response: vector_retrieval_pb2.GetItemsResponse = await self._call(self._stub.GetItems, request, timeout_s)
        return StoredItems(
            [Stored(item, item.group_id, None, item.id, item.title) for item in response.items],
            self._rows(response.embeddings, len(response.items)) if with_vectors else None,
        )

    async def upsert(self, items: Sequence[ItemPayload], vectors: Vectors, *, timeout_s: float) -> Sequence[RowError]:
        """The rows refused."""
        request = vector_retrieval_pb2.UpsertItemsRequest(items=wire.items(items), embeddings=wire.embeddings(vectors))
        response: vector_retrieval_pb2.UpsertItemsResponse = await self._call(
            self._stub.UpsertItems, request, timeout_s, self._writes
        )
        return wire.row_errors(response.errors, len(items), self._dependency.name)

    async def delete(self, ids: Sequence[str], *, timeout_s: float) -> int:
        """How many were there."""
        request = vector_retrieval_pb2.DeleteItemsRequest(ids=ids)
        response: vector_retrieval_pb2.DeleteItemsResponse = await self._call(
            self._stub.DeleteItems, request, timeout_s, self._writes
        )
        return response.deleted

    def _rows(self, embeddings: embeddings_pb2.Embeddings, rows: int) -> Vectors | None:
        return wire.vectors(embeddings, rows, self._dependency.name) if rows else None


class RerankerClient(Client):
    """`RerankerPort` over `aisle.rerank.v1.Reranker`."""

    def __init__(self, dependency: Dependency, guard: Guard) -> None:
        super().__init__(dependency, guard)
        self._stub = reranker_pb2_grpc.RerankerStub(dependency.channel)
        self._kinds: dict[str, str] = {}
        self._last_version = ""

    @property
    def reads_tokens(self) -> bool:
        """As of the model that answered last."""
        return self._kinds.get(self._last_version) == LATE_INTERACTION

    async def rerank(
        self, query: str, items: Sequence[ItemPayload], tokens: TokensPayload | None = None, *, timeout_s: float
    ) -> Reranked:
        """One score an item."""
        request = reranker_pb2.RerankRequest(
            query=query,
            items=wire.items(items),
            priority=priority_pb2.PRIORITY_INTERACTIVE,
            query_token_embeddings=wire.tokens(tokens),
        )
        started = time.monotonic()
        response: reranker_pb2.RerankResponse = await self._call(self._stub.Rerank, request, timeout_s)
        if len(response.scores) != len(items):
            name = self._dependency.name
            raise InternalError(f"{name} returned {len(response.scores)} scores for {len(items)} items")
        # A score that is not a number orders nothing: NaN is neither above nor below any other.
        scores = [s.score if s.HasField("score") and isfinite(s.score) else None for s in response.scores]
        left = timeout_s - (time.monotonic() - started)
        self._last_version = response.model_version
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


def _action(action: UserAction) -> query_encoder_pb2.UserAction:
    return query_encoder_pb2.UserAction(
        type=_ACTIONS[action.type], age_s=action.age_s, text=action.text, item_row=action.item_row
    )


def _candidate(hit: vector_retrieval_pb2.Hit) -> Candidate:
    # A hundred a search. Ranks count from 1, and a half that has one has a score: to ask for presence costs more.
    item, dense_rank, lexical_rank = hit.item, hit.dense_rank or None, hit.lexical_rank or None
    return Candidate(
        item.id,
        item,
        hit.score,
        hit.dense_score if dense_rank else None,
        dense_rank,
        hit.lexical_score if lexical_rank else None,
        lexical_rank,
        item.group_id,
    )
