"""Spans kept in memory, for tests of one process."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.telemetry import tracing
from shared.telemetry.otel import OpenTelemetry


@contextmanager
def traced(sample_ratio: float = 1.0) -> Iterator[InMemorySpanExporter]:
    """Tracing is on inside; gives what the spans that ended are found in."""
    provider = OpenTelemetry.provider("test")
    kept = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracing.install(OpenTelemetry(provider, sample_ratio))
    try:
        yield kept
    finally:
        tracing.stop()
