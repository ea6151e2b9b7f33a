"""python -m services.query_encoder: serves `aisle.encoder.v1.QueryEncoder`."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from aisle.encoder.v1 import query_encoder_pb2, query_encoder_pb2_grpc

from services.query_encoder.servicer import QueryEncoderServicer
from services.query_encoder.settings import QueryEncoderSettings
from services.query_encoder.users import HistoryAsText, UserModel, UserModelName, WeightedMean
from shared.rpc.server import ServedService, main
from shared.serving.encoder import open_encoder


async def build(settings: QueryEncoderSettings, stack: AsyncExitStack) -> Sequence[ServedService]:
    encoder = await open_encoder(settings, stack, name="query_encoder", cache_bytes=settings.cache_bytes, latency=True)
    users: dict[UserModelName, UserModel] = {
        UserModelName.WEIGHTED_MEAN: WeightedMean(encoder, settings.mean_policy()),
        UserModelName.TEXT: HistoryAsText(encoder),
    }
    servicer = QueryEncoderServicer(encoder, settings.backend, users, settings.user_model)

    async def check() -> str | None:
        health = encoder.batcher.health
        return None if health.ok else health.reason

    return [
        ServedService(
            query_encoder_pb2.DESCRIPTOR.services_by_name["QueryEncoder"].full_name,
            lambda server: query_encoder_pb2_grpc.add_QueryEncoderServicer_to_server(servicer, server),
            check,
        )
    ]


if __name__ == "__main__":
    main("query_encoder", QueryEncoderSettings, build)
