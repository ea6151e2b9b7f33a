"""A trace over the wire: a real client and a real server, in one process."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.openmetrics import exposition

from shared.errors import InternalError, InvalidArgumentError
from shared.rpc.client import Dependency
from shared.telemetry import tracing
from tests.support.spans import traced
from tests.unit.shared.rpc.conftest import Request, Response, Scripted, forever

METHOD = "aisle.encoder.v1.QueryEncoder/EncodeQueries"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    with traced() as kept:
        yield kept


def by_kind(spans: InMemorySpanExporter) -> dict[SpanKind, ReadableSpan]:
    return {span.kind: span for span in spans.get_finished_spans()}


def trace_of(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


async def test_client_and_server_are_spans_of_one_trace(
    spans: InMemorySpanExporter, dependency: Dependency, stub: Any
) -> None:
    await dependency.call(stub.EncodeQueries, Request(), timeout_s=5)
    ends = by_kind(spans)
    client, server = ends[SpanKind.CLIENT], ends[SpanKind.SERVER]
    assert server.parent is not None
    assert server.parent.span_id == client.context.span_id
    assert trace_of(server) == trace_of(client)
    assert client.name == server.name == METHOD
    for span in (client, server):
        assert span.attributes is not None
        assert span.attributes["rpc.system.name"] == "grpc"
        assert span.attributes["rpc.method"] == METHOD
        assert span.attributes["rpc.response.status_code"] == "OK"
        assert span.status.status_code is StatusCode.UNSET
    assert client.attributes is not None
    assert client.attributes["server.address"] == "127.0.0.1"
    assert isinstance(client.attributes["server.port"], int)


async def test_a_callers_trace_is_continued_and_handed_on(
    scripted: Scripted, spans: InMemorySpanExporter, dependency: Dependency, stub: Any
) -> None:
    seen: list[str] = []

    async def note(request: Any, context: Any) -> Response:
        seen.append(tracing.trace_id())
        if not request.queries:
            await dependency.call(stub.EncodeQueries, Request(queries=["once more"]), timeout_s=5)
        return Response()

    scripted.behaviour = note
    await stub.EncodeQueries(Request(), metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"),))
    assert seen == [TRACE, TRACE]
    assert {trace_of(span) for span in spans.get_finished_spans()} == {TRACE}
    outer = next(s for s in spans.get_finished_spans() if s.parent and f"{s.parent.span_id:016x}" == PARENT)
    handed_on = next(s for s in spans.get_finished_spans() if s.kind is SpanKind.CLIENT)
    assert handed_on.parent is not None
    assert handed_on.parent.span_id == outer.context.span_id


async def test_a_caller_that_does_not_sample_is_followed(spans: InMemorySpanExporter, stub: Any) -> None:
    await stub.EncodeQueries(Request(), metadata=(("traceparent", f"00-{TRACE}-{PARENT}-00"),))
    assert not spans.get_finished_spans()


@pytest.mark.parametrize("given", [(), (("traceparent", f"00-{TRACE}-{PARENT}-00"), ("tracestate", "shop=1"))])
async def test_that_nobody_samples_is_handed_on(
    scripted: Scripted, dependency: Dependency, stub: Any, given: tuple[tuple[str, str], ...]
) -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    async def note(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Response:
        carried = {str(k): str(v) for k, v in context.invocation_metadata() or () if str(k).startswith("trace")}
        seen.append((tracing.trace_id(), carried))
        if not request.queries:
            await dependency.call(stub.EncodeQueries, Request(queries=["once more"]), timeout_s=5)
        return Response()

    scripted.behaviour = note
    with traced(sample_ratio=0.0) as spans:
        await stub.EncodeQueries(Request(), metadata=given)
    (first, _), (second, carried) = seen
    assert first == second != ""
    assert carried["traceparent"].startswith(f"00-{first}-")
    assert carried["traceparent"].endswith("-00")
    assert carried.get("tracestate") == dict(given).get("tracestate")
    assert not spans.get_finished_spans()


@pytest.mark.parametrize("given", ["garbage", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"])
async def test_a_context_that_is_none_begins_a_trace(spans: InMemorySpanExporter, stub: Any, given: str) -> None:
    await stub.EncodeQueries(Request(), metadata=(("traceparent", given), ("tracestate", "=,=")))
    (span,) = spans.get_finished_spans()
    assert span.parent is None
    assert trace_of(span) != TRACE


@pytest.mark.parametrize(
    ("raised", "code", "server"),
    [
        (InvalidArgumentError.of("queries", "must not be empty"), "INVALID_ARGUMENT", StatusCode.UNSET),
        (InternalError("a bug"), "INTERNAL", StatusCode.ERROR),
        (ZeroDivisionError("the item text"), "INTERNAL", StatusCode.ERROR),
    ],
)
async def test_an_error_is_the_clients_and_only_some_are_the_servers(
    scripted: Scripted,
    spans: InMemorySpanExporter,
    dependency: Dependency,
    stub: Any,
    raised: Exception,
    code: str,
    server: StatusCode,
) -> None:
    async def fail(request: Any, context: Any) -> Response:
        raise raised

    scripted.behaviour = fail
    with pytest.raises((InvalidArgumentError, InternalError)):
        await dependency.call(stub.EncodeQueries, Request(), timeout_s=5)
    ends = by_kind(spans)
    assert {span.attributes["rpc.response.status_code"] for span in ends.values() if span.attributes} == {code}
    assert ends[SpanKind.CLIENT].status.status_code is StatusCode.ERROR
    assert ends[SpanKind.SERVER].status.status_code is server
    assert "item text" not in "".join(span.to_json() for span in ends.values())


async def test_a_call_given_up_ends_its_spans(
    scripted: Scripted, spans: InMemorySpanExporter, dependency: Dependency, stub: Any
) -> None:
    scripted.behaviour = forever
    calling = asyncio.create_task(dependency.call(stub.EncodeQueries, Request(), timeout_s=20))
    await asyncio.sleep(0.1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    async with asyncio.timeout(5):
        while len(by_kind(spans)) < 2:  # noqa: ASYNC110 - the other side hears of it when it does
            await asyncio.sleep(0.01)
    assert {s.attributes["rpc.response.status_code"] for s in spans.get_finished_spans() if s.attributes} == {
        "CANCELLED"
    }


async def test_a_stream_is_one_span(spans: InMemorySpanExporter, dependency: Dependency) -> None:
    stub = catalog_pb2_grpc.CatalogStub(dependency.channel)
    requests = iter([catalog_pb2.ImportItemsRequest()] * 3)
    carried = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
    assert len([response async for response in stub.ImportItems(requests, metadata=carried)]) == 3
    (span,) = spans.get_finished_spans()
    assert (span.name, trace_of(span)) == ("aisle.gateway.v1.Catalog/ImportItems", TRACE)


async def test_a_bucket_remembers_the_trace(spans: InMemorySpanExporter, stub: Any) -> None:
    await stub.EncodeQueries(Request(), metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"),))
    line = f'# {{trace_id="{TRACE}"}}'
    assert line in exposition.generate_latest(REGISTRY).decode()
    assert line not in generate_latest(REGISTRY).decode()


async def test_without_tracing_a_call_carries_nothing_more(
    scripted: Scripted, dependency: Dependency, stub: Any
) -> None:
    keys: set[str] = set()

    async def note(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Response:
        keys.update(str(key) for key, _ in context.invocation_metadata() or ())
        return Response()

    scripted.behaviour = note
    await dependency.call(stub.EncodeQueries, Request(), timeout_s=5)
    assert "traceparent" not in keys
