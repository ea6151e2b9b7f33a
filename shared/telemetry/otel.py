"""Spans by OpenTelemetry, named by its semantic conventions (RPC and database, 1.45), carried between processes by W3C
Trace Context. Imported only where tracing is on: see `tracing.py`.
"""

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
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
    """The tracer of one process. `sample_ratio`: see `tracing.start`."""

    def __init__(self, provider: TracerProvider, sample_ratio: float, exporter: OTLPSpanExporter | None = None) -> None:
        self._provider = provider
        self._sample_ratio = sample_ratio
        self._exporter = exporter
        self._tracer = provider.get_tracer("aisle")

    @classmethod
    def to_collector(cls, service: str, endpoint: str, sample_ratio: float) -> "OpenTelemetry":
        """Sends to the OTLP/gRPC collector at `endpoint`; the SDK's `OTEL_*` variables say the rest (resource
        attributes, queue, headers)."""
        provider = cls.provider(service)
        exporter = OTLPSpanExporter(endpoint=endpoint)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider, sample_ratio, exporter)

    @staticmethod
    def provider(service: str) -> TracerProvider:
        """What makes and keeps spans. Which traces begin is decided before it is asked: see `_span`."""
        return TracerProvider(
            sampler=ParentBased(ALWAYS_ON),
            resource=Resource.create({"service.name": service, "service.namespace": "aisle"}),
            shutdown_on_exit=False,
        )

    def served(self, method: str, metadata: Metadata, request_id: str) -> CallSpan:
        """The span of a call that is being served, from here on the current one of this task. `method` is
        `service/method`."""
        carrier = {key: value for key, value in metadata if key in _CARRIED and isinstance(value, str)}
        parent = trace.get_current_span(_W3C.extract(carrier)) if carrier else trace.INVALID_SPAN
        span = self._span(
            method,
            parent,
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": method, "aisle.request_id": request_id},
        )
        # Never detached: gRPC runs each call in a task, and so in a context, of its own.
        otel_context.attach(trace.set_span_in_context(span))
        return CallSpan(span, SpanKind.SERVER)

    def called(self, method: str, target: str) -> CallSpan:
        """The span of a call to `target` that is about to be made."""
        attributes = {"rpc.system.name": "grpc", "rpc.method": method, **_server(target)}
        return CallSpan(self._span(method, trace.get_current_span(), SpanKind.CLIENT, attributes), SpanKind.CLIENT)

    def _span(self, name: str, parent: Span, kind: SpanKind, attributes: Attributes) -> Span:
        """A span of the trace that `parent` belongs to, or of one that begins here.

        Where nobody samples the trace, what is handed on is its context alone: the SDK takes as long to find that out
        as for half a span, and most requests are of that kind.
        """
        context = parent.get_span_context()
        if context.is_valid and not context.trace_flags.sampled:
            return parent
        if not context.is_valid and random.random() >= self._sample_ratio:  # noqa: S311 - no secret
            return trace.NonRecordingSpan(SpanContext(_IDS.generate_trace_id(), _IDS.generate_span_id(), False))
        return self._tracer.start_span(name, trace.set_span_in_context(parent), kind, attributes)

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
_IDS = RandomIdGenerator()


@lru_cache(maxsize=256)
def _server(target: str) -> dict[str, str | int]:
    """`server.address` and `server.port` of a gRPC target (`host:port`, `dns:///host:port`, `unix:path`)."""
    if target.startswith("unix:"):
        return {"server.address": target.removeprefix("unix:")}
    address = target.rpartition("/")[2]
    host, _, port = address.rpartition(":")
    return {"server.address": host, "server.port": int(port)} if port.isdigit() else {"server.address": address}
