"""Spans by OpenTelemetry, named by its semantic conventions (RPC and database, 1.45), carried between processes by W3C
Trace Context. Imported only where tracing is on: see `tracing.py`.
"""

import random
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
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
_UNSAMPLED = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]")
"""A valid `traceparent` without the flag `sampled`."""

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


class Unfollowed:
    """A request whose trace nobody samples, on either side of every call that it makes.

    Most requests are of this kind, and the SDK takes as long to find that out, each time it is asked, as for half a
    span. So it is found out once, where the request arrives; what goes on with it are its headers, so that all the
    services behind decide alike.
    """

    __slots__ = ("_headers",)

    def __init__(self, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self._headers = headers

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What came, or of a trace that would have begun here: made up once somebody asks, for a service that calls no
        other needs none."""
        if not self._headers:
            ids = f"{trace.format_trace_id(_IDS.generate_trace_id())}-{trace.format_span_id(_IDS.generate_span_id())}"
            self._headers = (("traceparent", f"00-{ids}-00"),)
        return self._headers

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return next(value for key, value in self.headers if key == "traceparent")[3:35]

    def end(self, code: grpc.StatusCode) -> None:
        """Nothing was begun."""


_unfollowed: ContextVar[Unfollowed | None] = ContextVar("unfollowed", default=None)
"""The request being served, where it is one."""
_NOTHING: AbstractContextManager[None] = nullcontext()


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
        """What makes and keeps spans. Which traces begin is decided before it is asked: see `Unfollowed`."""
        return TracerProvider(
            sampler=ParentBased(ALWAYS_ON),
            resource=Resource.create({"service.name": service, "service.namespace": "aisle"}),
            shutdown_on_exit=False,
        )

    def served(self, method: str, metadata: Metadata, request_id: str) -> CallSpan | Unfollowed:
        """The span of a call that is being served, from here on the current one of this task. `method` is
        `service/method`."""
        carried = tuple((key, value) for key, value in metadata if key in _CARRIED and isinstance(value, str))
        unfollowed = self._unfollowed(carried)
        # Never reset, as the span is never detached: gRPC runs each call in a task, and so in a context, of its own.
        _unfollowed.set(unfollowed)
        if unfollowed is not None:
            return unfollowed
        parent = _W3C.extract(dict(carried))
        attributes = {"rpc.system.name": "grpc", "rpc.method": method, "aisle.request_id": request_id}
        span = self._tracer.start_span(method, parent, SpanKind.SERVER, attributes)
        otel_context.attach(trace.set_span_in_context(span))
        return CallSpan(span, SpanKind.SERVER)

    def called(self, method: str, target: str) -> CallSpan | Unfollowed:
        """The span of a call to `target` that is about to be made."""
        if (unfollowed := _unfollowed.get()) is not None:
            return unfollowed
        parent = trace.get_current_span()
        if not parent.is_recording() and not self._sampled():
            return Unfollowed()
        attributes = {"rpc.system.name": "grpc", "rpc.method": method, **_server(target)}
        span = self._tracer.start_span(method, trace.set_span_in_context(parent), SpanKind.CLIENT, attributes)
        return CallSpan(span, SpanKind.CLIENT)

    def part(self, name: str, attributes: Attributes | None = None) -> AbstractContextManager[None]:
        """See `tracing.span`."""
        return self._part(name, attributes) if _followed() else _NOTHING

    @contextmanager
    def _part(self, name: str, attributes: Attributes | None) -> Iterator[None]:
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

    def _unfollowed(self, carried: tuple[tuple[str, str], ...]) -> Unfollowed | None:
        """`None` for a request that is to be followed: its caller does, or it came without a decision and was drawn."""
        parent = next((value for key, value in carried if key == "traceparent"), "")
        if _UNSAMPLED.fullmatch(parent):
            return Unfollowed(carried)
        # What cannot be read begins a trace of its own (W3C Trace Context, 2.4).
        known = bool(parent) and trace.get_current_span(_W3C.extract(dict(carried))).get_span_context().is_valid
        return None if known or self._sampled() else Unfollowed()

    def _sampled(self) -> bool:
        return random.random() < self._sample_ratio  # noqa: S311 - no secret

    def batches(self, name: str, attributes: Attributes) -> "Batches":
        """See `tracing.batches`."""
        return Batches(self._tracer, name, attributes)

    def trace_id(self) -> str:
        """See `tracing.trace_id`."""
        if (unfollowed := _unfollowed.get()) is not None:
            return unfollowed.trace_id
        current = trace.get_current_span().get_span_context()
        return trace.format_trace_id(current.trace_id) if current.is_valid else ""

    def exemplar(self) -> dict[str, str] | None:
        """See `tracing.exemplar`."""
        return {"trace_id": self.trace_id()} if _followed() else None

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
        return trace.get_current_span().get_span_context() if _followed() else None

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


def _followed() -> bool:
    # By its context, and not by whether the span still records: a call is counted once its span has ended.
    return _unfollowed.get() is None and trace.get_current_span().get_span_context().trace_flags.sampled


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
