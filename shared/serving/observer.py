"""The engine's events as Prometheus metrics, its batches as spans."""

from shared.bundles import Bundle
from shared.inference import BatchTracer, Priority
from shared.telemetry import metrics, tracing


class PrometheusObserver:
    """Implements `shared.inference.EngineObserver`. Every series exists from the start, labelled by the bundle."""

    def __init__(self, bundle: Bundle) -> None:
        model = (bundle.manifest.name, bundle.version)
        self._depth = {p: metrics.ENGINE_QUEUE_ITEMS.labels(*model, p.name.lower()) for p in Priority}
        self._wait = {p: metrics.ENGINE_QUEUE_SECONDS.labels(*model, p.name.lower()) for p in Priority}
        self._rows = metrics.ENGINE_BATCH_ITEMS.labels(*model)
        self._batch_tokens = metrics.ENGINE_BATCH_TOKENS.labels(*model)
        self._padding = metrics.ENGINE_PADDING_SHARE.labels(*model)
        self._forward = metrics.ENGINE_FORWARD_SECONDS.labels(*model)
        self._tokens = metrics.ENGINE_TOKENS.labels(*model)
        self._failed = metrics.ENGINE_FAILED.labels(*model)
        self._cache_bytes = metrics.ENGINE_CACHE_BYTES.labels(*model)
        self._cache = {hit: metrics.ENGINE_CACHE.labels(*model, name) for hit, name in ((True, "hit"), (False, "miss"))}
        self._model = model

    def queue_depth(self, priority: Priority, rows: int) -> None:
        """See `EngineObserver`."""
        self._depth[priority].set(rows)

    def queue_wait(self, priority: Priority, seconds: float) -> None:
        """See `EngineObserver`."""
        self._wait[priority].observe(seconds)

    def batch(self, rows: int, tokens: int, padding_share: float, seconds: float) -> None:
        """See `EngineObserver`."""
        self._rows.observe(rows)
        self._batch_tokens.observe(tokens / (1 - padding_share) if padding_share < 1 else tokens)
        self._padding.observe(padding_share)
        self._forward.observe(seconds)
        self._tokens.inc(tokens)

    def cache(self, *, hit: bool) -> None:
        """See `EngineObserver`."""
        self._cache[hit].inc()

    def cache_size(self, size: int) -> None:
        """See `EngineObserver`."""
        self._cache_bytes.set(size)

    def refused(self, reason: str, rows: int) -> None:
        """See `EngineObserver`."""
        metrics.ENGINE_REFUSED.labels(*self._model, reason).inc(rows)

    def dropped(self, why: str, rows: int) -> None:
        """See `EngineObserver`."""
        metrics.ENGINE_DROPPED.labels(*self._model, why).inc(rows)

    def failed(self, rows: int) -> None:
        """See `EngineObserver`."""
        self._failed.inc(rows)


def batch_tracer(bundle: Bundle, name: str) -> BatchTracer | None:
    """What the batcher of `bundle`'s model tells its batches to; `None` where tracing is off."""
    return tracing.batches(name, {"aisle.model": bundle.manifest.name, "aisle.model_version": bundle.version})
