"""python -m services.reranker: serves `aisle.rerank.v1.Reranker`."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc

from services.reranker.scorer import open_warm
from services.reranker.servicer import RerankerServicer
from services.reranker.settings import RerankerSettings
from shared.bundles import Bundle
from shared.inference import Scorer
from shared.rpc.server import ServedService, main
from shared.serving.follow import open_model


async def build(settings: RerankerSettings, stack: AsyncExitStack) -> Sequence[ServedService]:
    async def open_(bundle: Bundle) -> Scorer:
        return await open_warm(settings, bundle)

    models = await open_model(settings, stack, open_)
    servicer = RerankerServicer(models, settings.backend)

    return [
        ServedService(
            reranker_pb2.DESCRIPTOR.services_by_name["Reranker"].full_name,
            lambda server: reranker_pb2_grpc.add_RerankerServicer_to_server(servicer, server),
            models.health,
        )
    ]


if __name__ == "__main__":
    main("reranker", RerankerSettings, build)
