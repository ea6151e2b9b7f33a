"""Spans by OpenTelemetry, named by its semantic conventions (RPC and database, 1.45), carried between processes by W3C
Trace Context. Imported only where tracing is on: see `tracing.py`.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.telemetry.tracing import Attributes, Metadata

_FLUSH_S = 3.0
"""How long a process that ends waits for its collector: less than any pod is given to end."""
_CARRIED = ("traceparent", "tracestate")

_SERVER_ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""The codes that speak of a failing server, and not of its caller; to a client every code but OK is an error."""


class CallSpan:
    """One call on one side of the wire. `headers` carry it to the other side."""

    def __init__(self, span: Span, kind: SpanKind) -> None:
        self._span = span
        self._server = kind is SpanKind.SERVER

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Metadata of the call that this span is about."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(self._span))
        return tuple(carrier.items())

    def end(self, code: grpc.StatusCode) -> None:
        """Ends it with the call's status."""
        self._span.set_attribute("rpc.response.status_code", code.name)
        if code.name in _SERVER_ERRORS or (not self._server and code is not grpc.StatusCode.OK):
            self._span.set_attribute("error.type", code.name)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class OpenTelemetry:
    """The tracer of one process."""

    def __init__(self, provider: TracerProvider, exporter: OTLPSpanExporter | None = None) -> None:
        self._provider = provider
        self._exporter = exporter
        self._tracer = provider.get_tracer("aisle")

    @classmethod
    def to_collector(cls, service: str, endpoint: str, sample_ratio: float) -> "OpenTelemetry":
        """Sends to the OTLP/gRPC collector at `endpoint`; the SDK's `OTEL_*` variables say the rest (resource
        attributes, queue, headers)."""
        provider = cls.provider(service, sample_ratio)
        exporter = OTLPSpanExporter(endpoint=endpoint)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider, exporter)

    @staticmethod
    def provider(service: str, sample_ratio: float) -> TracerProvider:
        """Samples the requests whose caller does, and `sample_ratio` of those whose caller does not say."""
        return TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            resource=Resource.create({"service.name": service, "service.namespace": "aisle"}),
            shutdown_on_exit=False,
        )

    def served(self, method: str, metadata: Metadata, request_id: str) -> CallSpan:
        """The span of a call that is being served, from here on the current one of this task. `method` is
        `service/method`."""
        carrier = {key: value for key, value in metadata if key in _CARRIED and isinstance(value, str)}
        span = self._tracer.start_span(
            method,
            _W3C.extract(carrier),
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": method, "aisle.request_id": request_id},
        )
        # Never detached: gRPC runs each call in a task, and so in a context, of its own.
        otel_context.attach(trace.set_span_in_context(span))
        return CallSpan(span, SpanKind.SERVER)

    def called(self, method: str, target: str) -> CallSpan:
        """The span of a call to `target` that is about to be made."""
        span = self._tracer.start_span(
            method,
            kind=SpanKind.CLIENT,
            attributes={"rpc.system.name": "grpc", "rpc.method": method, **_server(target)},
        )
        return CallSpan(span, SpanKind.CLIENT)

    @contextmanager
    def part(self, name: str, attributes: Attributes | None = None) -> Iterator[None]:
        """See `tracing.span`."""
        if not trace.get_current_span().is_recording():
            yield
            return
        # An exception's message may quote what a shopper typed: its type is all that is kept.
        with self._tracer.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(StatusCode.ERROR)
                raise

    def batches(self, name: str, attributes: Attributes) -> "Batches":
        """See `tracing.batches`."""
        return Batches(self._tracer, name, attributes)

    def trace_id(self) -> str:
        """See `tracing.trace_id`."""
        current = trace.get_current_span().get_span_context()
        return trace.format_trace_id(current.trace_id) if current.is_valid else ""

    def exemplar(self) -> dict[str, str] | None:
        """See `tracing.exemplar`."""
        current = trace.get_current_span().get_span_context()
        return {"trace_id": trace.format_trace_id(current.trace_id)} if current.trace_flags.sampled else None

    def shutdown(self) -> None:
        """Sends what is left."""
        if self._exporter is None:
            self._provider.shutdown()
            return
        # A collector that is down is retried; ending the exporter ends that.
        giving_up = threading.Timer(_FLUSH_S, self._exporter.shutdown)
        giving_up.daemon = True
        giving_up.start()
        self._provider.shutdown()
        giving_up.cancel()


class Batches:
    """Spans of an engine's batches: each is part of the first request it serves, and linked to all of them."""

    def __init__(self, tracer: trace.Tracer, name: str, attributes: Attributes) -> None:
        self._tracer = tracer
        self._name = f"{name} batch"
        self._attributes = dict(attributes)

    def origin(self) -> SpanContext | None:
        """The request being served, where it is sampled."""
        current = trace.get_current_span().get_span_context()
        return current if current.is_valid and current.trace_flags.sampled else None

    def batch(self, origins: Sequence[SpanContext], rows: int, tokens: int) -> AbstractContextManager[Any]:
        """The span of a forward pass."""
        served = list({one.span_id: one for one in origins}.values())
        return self._tracer.start_as_current_span(
            self._name,
            trace.set_span_in_context(trace.NonRecordingSpan(served[0])),
            attributes={**self._attributes, "aisle.batch.items": rows, "aisle.batch.tokens": tokens},
            links=[Link(one) for one in served],
            record_exception=False,
            set_status_on_exception=False,
        )


_W3C = TraceContextTextMapPropagator()


def _server(target: str) -> dict[str, str | int]:
    """`server.address` and `server.port` of a gRPC target (`host:port`, `dns:///host:port`, `unix:path`)."""
    if target.startswith("unix:"):
        return {"server.address": target.removeprefix("unix:")}
    address = target.rpartition("/")[2]
    host, _, port = address.rpartition(":")
    return {"server.address": host, "server.port": int(port)} if port.isdigit() else {"server.address": address}
