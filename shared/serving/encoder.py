"""Loads the bi-encoder of a service off the event loop, and warms it up."""

import asyncio
from typing import Any

from shared.bundles import Bundle, Tower
from shared.inference import Batcher, BiEncoder, QueryCache, open_backend
from shared.rpc.server import StartupError
from shared.serving.observer import PrometheusObserver, batch_tracer
from shared.serving.settings import ModelServiceSettings


async def open_encoder(
    settings: ModelServiceSettings,
    bundle: Bundle,
    *,
    name: str,
    tower: Tower,
    cache_bytes: int = 0,
    latency: bool = False,
) -> BiEncoder:
    """The encoder of `bundle` for what `tower` reads, warm; `cache_bytes` > 0 gives it a query cache, `latency` a road
    for lone short queries (see `open_backend`).

    Raises `StartupError` or `BundleError` saying what to change where the bundle or the device will not do.
    """

    def load() -> BiEncoder:
        observer = PrometheusObserver(bundle)
        try:
            backend = open_backend(
                settings.backend, bundle, tower=tower, threads=settings.threads, spin=settings.spin, latency=latency
            )
        except ValueError as error:
            raise StartupError(f"backend {settings.backend}: {error}") from error
        batcher: Batcher[Any, Any] = Batcher(
            backend, settings.limits(), observer=observer, tracer=batch_tracer(bundle, name), name=name
        )
        cache = QueryCache(cache_bytes, observer=observer) if cache_bytes else None
        return BiEncoder(bundle, batcher, cache=cache)

    encoder = await asyncio.to_thread(load)
    await encoder.batcher.start()
    try:
        await encoder.warm_up()
    except BaseException:
        await encoder.close()
        raise
    return encoder
