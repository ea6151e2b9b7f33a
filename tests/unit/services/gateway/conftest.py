"""The gateway as `__main__` wires it, served in-process among fake services that a test scripts."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.common.v1 import embeddings_pb2, model_pb2
from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc, query_encoder_pb2, query_encoder_pb2_grpc
from aisle.events.v1 import event_pb2, user_events_pb2, user_events_pb2_grpc
from aisle.gateway.v1 import catalog_pb2_grpc, gateway_pb2_grpc
from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc
from aisle.retrieval.v1 import vector_retrieval_pb2, vector_retrieval_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.gateway.__main__ import build
from services.gateway.settings import GatewaySettings
from shared.rpc.health import REPLICA, HealthMonitor
from shared.rpc.interceptor import CallInterceptor
from shared.rpc.server import ServedService, make_server

SERVICES = {
    "aisle.encoder.v1.QueryEncoder": query_encoder_pb2_grpc.add_QueryEncoderServicer_to_server,
    "aisle.encoder.v1.ItemEncoder": item_encoder_pb2_grpc.add_ItemEncoderServicer_to_server,
    "aisle.retrieval.v1.VectorRetrieval": vector_retrieval_pb2_grpc.add_VectorRetrievalServicer_to_server,
    "aisle.rerank.v1.Reranker": reranker_pb2_grpc.add_RerankerServicer_to_server,
    "aisle.events.v1.UserEvents": user_events_pb2_grpc.add_UserEventsServicer_to_server,
}

Behaviour = Callable[[Any], Awaitable[Any]]


def embeddings(rows: int, version: str = "v1") -> embeddings_pb2.Embeddings:
    return embeddings_pb2.Embeddings(
        data=bytes(8 * rows), dimensions=2, dtype=embeddings_pb2.DTYPE_FLOAT32, model_version=version
    )


def item(at: int) -> item_pb2.Item:
    return item_pb2.Item(id=f"id-{at}", title=f"Item {at}", group_id=f"g{at}")


class Backend:
    """All services behind it. Every method answers something sensible until a test replaces its entry in `on`."""

    def __init__(self) -> None:
        self.requests: dict[str, list[Any]] = {}
        self.on: dict[str, Behaviour] = {
            "EncodeQueries": self._encode_queries,
            "EncodeItems": self._encode_items,
            "Search": self._search,
            "GetItems": self._get_items,
            "UpsertItems": self._upsert_items,
            "DeleteItems": self._delete_items,
            "Rerank": self._rerank,
            "GetModel": self._get_model,
            "BrowseItems": self._browse_items,
            "EncodeUsers": self._encode_users,
            "GetHistory": self._get_history,
            "GetRelatedItems": self._get_related_items,
            "ListPopularItems": self._list_popular_items,
            "WriteEvents": self._write_events,
        }

    def __getattr__(self, name: str) -> Any:
        async def serve(request: Any, context: Any) -> Any:
            self.requests.setdefault(name, []).append(request)
            behaviour = self.on.get(name)
            if behaviour is None:
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in this fake")
                raise AssertionError
            return await behaviour(request)

        return serve

    async def _encode_queries(self, request: Any) -> Any:
        return query_encoder_pb2.EncodeQueriesResponse(embeddings=embeddings(len(request.queries)))

    async def _encode_items(self, request: Any) -> Any:
        return item_encoder_pb2.EncodeItemsResponse(embeddings=embeddings(len(request.items)))

    async def _search(self, request: Any) -> Any:
        hits = [
            vector_retrieval_pb2.Hit(item=item(at), score=1 - at / 100, dense_score=0.5, dense_rank=at + 1)
            for at in range(min(request.limit, 20))
        ]
        rows = embeddings(len(hits)) if request.include_embeddings else None
        return vector_retrieval_pb2.SearchResponse(
            candidates=[vector_retrieval_pb2.Candidates(hits=hits, embeddings=rows)],
            generation="g1",
            model_version="v1",
        )

    async def _browse_items(self, request: Any) -> Any:
        items = [item(at) for at in range(min(request.limit, 5))]
        return vector_retrieval_pb2.BrowseItemsResponse(
            items=items, embeddings=embeddings(len(items)), generation="g1", model_version="v1"
        )

    async def _encode_users(self, request: Any) -> Any:
        return query_encoder_pb2.EncodeUsersResponse(
            embeddings=embeddings(len(request.users)), model=query_encoder_pb2.USER_MODEL_WEIGHTED_MEAN
        )

    async def _get_history(self, request: Any) -> Any:
        if request.user_id == "stranger":
            return user_events_pb2.GetHistoryResponse()
        viewed = user_events_pb2.PastEvent(id="e", type=event_pb2.EVENT_TYPE_VIEW, item_id="id-3")
        return user_events_pb2.GetHistoryResponse(events=[viewed], version=7)

    async def _get_related_items(self, request: Any) -> Any:
        related = [user_events_pb2.ScoredItem(item_id="id-1", score=2.0)]
        return user_events_pb2.GetRelatedItemsResponse(items=related)

    async def _list_popular_items(self, request: Any) -> Any:
        return user_events_pb2.ListPopularItemsResponse(items=[user_events_pb2.ScoredItem(item_id="id-0", score=1.0)])

    async def _write_events(self, request: Any) -> Any:
        return user_events_pb2.WriteEventsResponse(accepted=len(request.events))

    async def _get_items(self, request: Any) -> Any:
        items = [item_pb2.Item(id=i, title="t") for i in request.ids if i != "gone"]
        return vector_retrieval_pb2.GetItemsResponse(
            items=items, embeddings=embeddings(len(items)) if request.include_embeddings else None
        )

    async def _upsert_items(self, request: Any) -> Any:
        return vector_retrieval_pb2.UpsertItemsResponse(accepted=len(request.items))

    async def _delete_items(self, request: Any) -> Any:
        return vector_retrieval_pb2.DeleteItemsResponse(deleted=len(request.ids))

    async def _rerank(self, request: Any) -> Any:
        scores = [reranker_pb2.RerankScore(score=at) for at in range(len(request.items))]
        return reranker_pb2.RerankResponse(scores=scores, model_version="r1")

    async def _get_model(self, request: Any) -> Any:
        return model_pb2.GetModelResponse(model=model_pb2.Model(version="r1", kind="cross-encoder"))


@dataclass
class Mesh:
    """Stubs of the gateway, what it serves, and the services behind it."""

    gateway: Any
    catalog: Any
    services: dict[str, ServedService]
    backend: Backend
    health: health.aio.HealthServicer
    settings: GatewaySettings
    address: str
    stop_backend: Callable[[], Awaitable[None]] = field(repr=False)


@pytest.fixture
async def mesh(request: pytest.FixtureRequest) -> AsyncIterator[Mesh]:
    """Settings can be given by indirect parametrisation."""
    async with contextlib.AsyncExitStack() as stack:
        backend, health_servicer = Backend(), health.aio.HealthServicer()

        for name in (REPLICA, *SERVICES):
            await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        behind = grpc.aio.server(interceptors=[CallInterceptor(10.0, 4 << 20)])
        for add in SERVICES.values():
            add(backend, behind)
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, behind)
        target = f"127.0.0.1:{behind.add_insecure_port('127.0.0.1:0')}"
        await behind.start()
        stack.push_async_callback(behind.stop, None)
        settings = GatewaySettings(
            query_encoder_target=target,
            item_encoder_target=target,
            vector_retrieval_target=target,
            reranker_target=target,
            user_events_target=target,
            **{"import_patience_s": 0.0, **getattr(request, "param", {})},
        )
        served = await build(settings, stack)
        monitor = HealthMonitor({service.name: service.check for service in served}, settings.health_interval_s)
        server = make_server(settings, served, monitor)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        stack.push_async_callback(server.stop, None)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        yield Mesh(
            gateway=gateway_pb2_grpc.GatewayStub(channel),
            catalog=catalog_pb2_grpc.CatalogStub(channel),
            services={service.name: service for service in served},
            backend=backend,
            health=health_servicer,
            settings=settings,
            address=address,
            stop_backend=lambda: behind.stop(None),
        )
