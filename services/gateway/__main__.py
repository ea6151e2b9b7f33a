"""Wires the gateway and serves it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from aisle.encoder.v1 import item_encoder_pb2, query_encoder_pb2
from aisle.events.v1 import user_events_pb2
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc, gateway_pb2, gateway_pb2_grpc
from aisle.rerank.v1 import reranker_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2
from google.protobuf.descriptor import FileDescriptor

from services.gateway.admission import Admission
from services.gateway.breaker import Breaker, Guard
from services.gateway.catalog import Catalog, CatalogWriter
from services.gateway.clients import ItemEncoderClient, QueryEncoderClient, RerankerClient, RetrievalClient
from services.gateway.clients_events import UserEventsClient
from services.gateway.importing import Importer
from services.gateway.paging import PageTokens
from services.gateway.recommend import Recommender
from services.gateway.search import Searcher
from services.gateway.servicer import GatewayServicer
from services.gateway.servicer_catalog import CatalogServicer
from services.gateway.settings import GatewaySettings
from services.gateway.shoppers import Shoppers
from services.gateway.similar import SimilarFinder
from shared.attribution import AttributionTokens
from shared.rpc.client import Dependency
from shared.rpc.deadline import remaining_s
from shared.rpc.server import ServedService, main


async def build(settings: GatewaySettings, stack: AsyncExitStack) -> Sequence[ServedService]:
    """Both services. Connects lazily: a dependency that is down shows in health, not here."""

    def connect(name: str, file: FileDescriptor, service: str, target: str) -> Dependency:
        dependency = Dependency(
            name,
            _full_name(file, service),
            target,
            settings.mtls(),
            client_balancing=settings.client_balancing,
        )
        stack.push_async_callback(dependency.close)
        return dependency

    def guard(dependency: Dependency) -> Guard:
        breaker = Breaker(settings.breaker_failures, settings.breaker_open_s)
        return Guard(dependency.name, breaker, patience_s=settings.breaker_patience_s)

    query_encoder = connect(
        "query_encoder", query_encoder_pb2.DESCRIPTOR, "QueryEncoder", settings.query_encoder_target
    )
    item_encoder = connect("item_encoder", item_encoder_pb2.DESCRIPTOR, "ItemEncoder", settings.item_encoder_target)
    index = connect(
        "vector_retrieval", vector_retrieval_pb2.DESCRIPTOR, "VectorRetrieval", settings.vector_retrieval_target
    )
    reranker = connect("reranker", reranker_pb2.DESCRIPTOR, "Reranker", settings.reranker_target)

    user_events = connect("user_events", user_events_pb2.DESCRIPTOR, "UserEvents", settings.user_events_target)

    retrieval = RetrievalClient(index, guard(index), guard(index), dense_weight=settings.dense_weight)
    tokens = PageTokens(settings.page_token_key.get_secret_value().encode())
    encoder = QueryEncoderClient(query_encoder, guard(query_encoder))
    events = UserEventsClient(user_events, guard(user_events), guard(user_events))
    shoppers = Shoppers(events, retrieval, encoder, settings.profile_policy())
    searcher = Searcher(
        encoder,
        retrieval,
        RerankerClient(reranker, guard(reranker)),
        shoppers,
        tokens,
        settings.search_policy(),
        remaining_s=remaining_s,
    )
    similar = SimilarFinder(retrieval, tokens, settings.similar_policy(), remaining_s=remaining_s)
    writer = CatalogWriter(ItemEncoderClient(item_encoder, guard(item_encoder)), retrieval)
    recommender = Recommender(
        shoppers=shoppers,
        sources=settings.sources(retrieval, events),
        retrieval=retrieval,
        encoder=encoder,
        events=events,
        tokens=tokens,
        policy=settings.recommend_policy(),
        remaining_s=remaining_s,
    )
    impressions = settings.impressions(events)
    stack.push_async_callback(impressions.close)
    attribution = AttributionTokens(settings.attribution_key.get_secret_value().encode())
    admission = Admission(settings.admission_policy(), remaining_s=remaining_s)
    front = GatewayServicer(admission, searcher, similar, recommender, attribution, impressions)
    shop = CatalogServicer(
        Catalog(writer, retrieval, settings.catalog_policy(), remaining_s=remaining_s),
        Importer(writer, settings.import_policy(), remaining_s=remaining_s),
    )
    return (
        ServedService(
            _full_name(gateway_pb2.DESCRIPTOR, "Gateway"),
            lambda server: gateway_pb2_grpc.add_GatewayServicer_to_server(front, server),
            _all_serve(index),
            shared_fate=True,
            gate=admission.refusal,
        ),
        ServedService(
            _full_name(catalog_pb2.DESCRIPTOR, "Catalog"),
            lambda server: catalog_pb2_grpc.add_CatalogServicer_to_server(shop, server),
            _all_serve(index, item_encoder),
        ),
    )


def _full_name(file: FileDescriptor, service: str) -> str:
    name: str = file.services_by_name[service].full_name
    return name


def _all_serve(*dependencies: Dependency) -> Callable[[], Awaitable[str | None]]:
    """A check of what cannot be done without; query encoder, re-ranker and log can."""

    async def check() -> str | None:
        reasons = await asyncio.gather(*(dependency.check() for dependency in dependencies))
        return "; ".join(reason for reason in reasons if reason is not None) or None

    return check


if __name__ == "__main__":
    main("gateway", GatewaySettings, build)
