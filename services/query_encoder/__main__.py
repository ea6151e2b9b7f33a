"""python -m services.query_encoder: serves `aisle.encoder.v1.QueryEncoder`."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from aisle.encoder.v1 import query_encoder_pb2, query_encoder_pb2_grpc

from services.query_encoder.model import QueryModel
from services.query_encoder.servicer import QueryEncoderServicer
from services.query_encoder.settings import QueryEncoderSettings
from shared.bundles import Bundle, BundleKind, Tower
from shared.rpc.server import ServedService, main
from shared.serving.encoder import open_encoder
from shared.serving.follow import open_model


async def build(settings: QueryEncoderSettings, stack: AsyncExitStack) -> Sequence[ServedService]:
    async def open_(bundle: Bundle) -> QueryModel:
        encoder = await open_encoder(
            settings, bundle, name="query_encoder", tower=Tower.QUERY, cache_bytes=settings.cache_bytes, latency=True
        )
        return QueryModel.of(encoder, settings.mean_policy())

    models = await open_model(settings, stack, open_, BundleKind.BI_ENCODER)
    servicer = QueryEncoderServicer(models, settings.backend, settings.user_model)

    return [
        ServedService(
            query_encoder_pb2.DESCRIPTOR.services_by_name["QueryEncoder"].full_name,
            lambda server: query_encoder_pb2_grpc.add_QueryEncoderServicer_to_server(servicer, server),
            models.health,
        )
    ]


if __name__ == "__main__":
    main("query_encoder", QueryEncoderSettings, build)
