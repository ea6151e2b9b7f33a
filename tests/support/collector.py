"""An OpenTelemetry collector that keeps what it is sent: a real OTLP/gRPC receiver, for tests."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Received:
    """One span, and the service that sent it."""

    service: str
    span: trace_pb2.Span

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def trace(self) -> str:
        return self.span.trace_id.hex()

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def kind(self) -> str:
        return trace_pb2.Span.SpanKind.Name(self.span.kind).removeprefix("SPAN_KIND_")

    @property
    def attributes(self) -> dict[str, Any]:
        return {a.key: getattr(a.value, a.value.WhichOneof("value") or "string_value") for a in self.span.attributes}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps spans in the order of their arrival."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.spans: list[Received] = []
        self._lock = threading.Lock()

    def Export(self, request: Any, context: Any) -> Any:
        with self._lock:
            for resource in request.resource_spans:
                named = {a.key: a.value.string_value for a in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self.spans.extend(Received(named.get("service.name", ""), span) for span in scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, trace_id: str) -> list[Received]:
        with self._lock:
            return [one for one in self.spans if one.trace == trace_id]

    def wait(self, trace_id: str, enough: Callable[[list[Received]], bool], timeout_s: float = 20.0) -> list[Received]:
        """The spans of a trace once they are `enough`, or what there is after `timeout_s`."""
        until = time.monotonic() + timeout_s
        while not enough(found := self.trace(trace_id)) and time.monotonic() < until:
            time.sleep(0.05)
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on a free port of the loopback address."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
