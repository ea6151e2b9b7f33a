"""Opens the bi-encoder of a service, warm, and closes it with the process."""

from contextlib import AsyncExitStack
from typing import Any

from shared.bundles import BundleKind, load_bundle
from shared.inference import Batcher, BiEncoder, QueryCache, open_backend, tune_interpreter
from shared.rpc.server import StartupError
from shared.serving.observer import PrometheusObserver, batch_tracer
from shared.serving.settings import ModelServiceSettings


async def open_encoder(
    settings: ModelServiceSettings, stack: AsyncExitStack, *, name: str, cache_bytes: int = 0, latency: bool = False
) -> BiEncoder:
    """The encoder that `settings` name, warmed up; `cache_bytes` > 0 gives it a query cache, `latency` a road for lone
    short queries (see `open_backend`).

    Raises `StartupError` or `BundleError` saying what to change where the bundle or the device will not do.
    """
    tune_interpreter()
    bundle = load_bundle(settings.bundle, kind=BundleKind.BI_ENCODER)
    observer = PrometheusObserver(bundle)
    try:
        backend = open_backend(settings.backend, bundle, threads=settings.threads, spin=settings.spin, latency=latency)
    except ValueError as error:
        raise StartupError(f"backend {settings.backend}: {error}") from error
    batcher: Batcher[Any, Any] = Batcher(
        backend, settings.limits(), observer=observer, tracer=batch_tracer(bundle, name), name=name
    )
    cache = QueryCache(cache_bytes, observer=observer) if cache_bytes else None
    encoder = BiEncoder(bundle, batcher, cache=cache)
    stack.push_async_callback(batcher.close)
    await batcher.start()
    await encoder.warm_up()
    return encoder
