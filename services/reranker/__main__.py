"""python -m services.reranker: serves `aisle.rerank.v1.Reranker`."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc

from services.reranker.servicer import RerankerServicer
from services.reranker.settings import RerankerSettings
from shared.bundles import Bundle
from shared.inference import Scorer, open_scorer
from shared.rpc.server import ServedService, StartupError, main
from shared.serving.follow import open_model
from shared.serving.observer import PrometheusObserver, batch_tracer


async def build(settings: RerankerSettings, stack: AsyncExitStack) -> Sequence[ServedService]:
    async def open_(bundle: Bundle) -> Scorer:
        scorer = await asyncio.to_thread(_load, settings, bundle)
        await scorer.start()
        try:
            await scorer.warm_up()
        except BaseException:
            await scorer.close()
            raise
        return scorer

    models = await open_model(settings, stack, open_)
    servicer = RerankerServicer(models, settings.backend)

    return [
        ServedService(
            reranker_pb2.DESCRIPTOR.services_by_name["Reranker"].full_name,
            lambda server: reranker_pb2_grpc.add_RerankerServicer_to_server(servicer, server),
            models.health,
        )
    ]


def _load(settings: RerankerSettings, bundle: Bundle) -> Scorer:
    try:
        return open_scorer(
            bundle,
            backend=settings.backend,
            limits=settings.limits(),
            observer=PrometheusObserver(bundle),
            tracer=batch_tracer(bundle, "reranker"),
            threads=settings.threads,
            spin=settings.spin,
            cache_bytes=settings.item_cache_bytes,
            storage=settings.item_cache_storage,
        )
    except ValueError as error:
        raise StartupError(f"backend {settings.backend}: {error}") from error


if __name__ == "__main__":
    main("reranker", RerankerSettings, build)
