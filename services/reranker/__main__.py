"""python -m services.reranker: serves `aisle.rerank.v1.Reranker`."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc

from services.reranker.servicer import RerankerServicer
from services.reranker.settings import RerankerSettings
from shared.bundles import load_bundle
from shared.inference import open_scorer, tune_interpreter
from shared.rpc.server import ServedService, StartupError, main
from shared.serving.observer import PrometheusObserver, batch_tracer


async def build(settings: RerankerSettings, stack: AsyncExitStack) -> Sequence[ServedService]:
    tune_interpreter()
    bundle = load_bundle(settings.bundle)
    try:
        scorer = open_scorer(
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
    stack.push_async_callback(scorer.close)
    await scorer.start()
    await scorer.warm_up()
    servicer = RerankerServicer(scorer, settings.backend)

    async def check() -> str | None:
        health = scorer.batcher.health
        return None if health.ok else health.reason

    return [
        ServedService(
            reranker_pb2.DESCRIPTOR.services_by_name["Reranker"].full_name,
            lambda server: reranker_pb2_grpc.add_RerankerServicer_to_server(servicer, server),
            check,
        )
    ]


if __name__ == "__main__":
    main("reranker", RerankerSettings, build)
