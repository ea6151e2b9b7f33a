"""Loads the scorer of a bundle off the event loop, and warms it up."""

import asyncio

from services.reranker.settings import RerankerSettings
from shared.bundles import Bundle
from shared.inference import Scorer, open_scorer
from shared.rpc.server import StartupError
from shared.serving.observer import PrometheusObserver, batch_tracer


async def open_warm(settings: RerankerSettings, bundle: Bundle) -> Scorer:
    """Raises `StartupError` or `BundleError` saying what to change where the bundle or the device will not do."""

    def load() -> Scorer:
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

    scorer = await asyncio.to_thread(load)
    await scorer.start()
    try:
        await scorer.warm_up()
    except BaseException:
        await scorer.close()
        raise
    return scorer
