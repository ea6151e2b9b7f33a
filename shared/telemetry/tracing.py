"""Tracing, where it is on: what the rest of the code asks, and costs one `is None` where it is off.

OpenTelemetry is imported by `start` alone, so that a process without tracing neither loads nor needs it.

    tracing.start("gateway", "http://collector:4317", sample_ratio=0.1)     # once, before anything is served
    with tracing.span("rerank"): ...                                        # a part of the request being served
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from shared.telemetry.otel import OpenTelemetry

Attributes = Mapping[str, str | int | float | bool]
Metadata = Iterable[tuple[str, str | bytes]]


class TracingUnavailableError(Exception):
    """Tracing was asked for and OpenTelemetry is not installed."""


class BatchTracer(Protocol):
    """Joins batches to the requests they serve; implements `shared.inference.BatchTracer`."""

    def origin(self) -> Any:
        """The request being served; `None` where nobody follows it."""

    def batch(self, origins: Sequence[Any], rows: int, tokens: int) -> AbstractContextManager[Any]:
        """Spans the forward pass that is run inside."""


_active: "OpenTelemetry | None" = None
_NOTHING: AbstractContextManager[None] = nullcontext()


def start(service: str, endpoint: str, sample_ratio: float) -> None:
    """From now on this process traces, and sends its spans to the OTLP/gRPC collector at `endpoint`.

    `sample_ratio`, 0 to 1, of the requests that come without a decision. Raises `TracingUnavailableError`.
    """
    try:
        from shared.telemetry import otel
    except ImportError as error:
        raise TracingUnavailableError(
            f"tracing needs packages that are not installed ({error.name}): pip install 'aisle[tracing]', or leave "
            "otlp_endpoint empty"
        ) from error
    install(otel.OpenTelemetry.to_collector(service, endpoint, sample_ratio))


def install(tracer: "OpenTelemetry | None") -> None:
    """Makes `tracer` this process's; `None` turns tracing off."""
    global _active
    _active = tracer


def active() -> "OpenTelemetry | None":
    """This process's tracer, `None` where tracing is off."""
    return _active


def stop() -> None:
    """Sends what has not been sent, for some seconds at most, and turns tracing off. Blocks."""
    if _active is not None:
        _active.shutdown()
        install(None)


def span(name: str, attributes: Attributes | None = None) -> AbstractContextManager[Any]:
    """Spans what runs inside, as a part of the request being served. Nothing where no request is, or is not sampled."""
    return _NOTHING if _active is None else _active.part(name, attributes)


def batches(name: str, attributes: Attributes) -> BatchTracer | None:
    """What an engine called `name` tells its batches to; `None` where tracing is off."""
    return None if _active is None else _active.batches(name, attributes)


def trace_id() -> str:
    """The trace that the call being served belongs to, 32 hex digits; empty where there is none."""
    return "" if _active is None else _active.trace_id()


def exemplar() -> dict[str, str] | None:
    """What a histogram's bucket remembers of the request being served, where somebody can look at its trace."""
    return None if _active is None else _active.exemplar()
