"""Tracing within a process: its parts, its batches, and what it is where it is off."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from shared.inference import Batcher
from shared.inference.backends.dummy import DummyBackend
from shared.inference.tokens import Tokens
from shared.settings import ServiceSettings
from shared.telemetry import tracing
from shared.telemetry.otel import _server
from tests.support.collector import collecting
from tests.support.spans import traced


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    with traced() as kept:
        yield kept


async def request(work: Any, request_id: str = "r") -> None:
    """Does `work` as a call that is served."""
    tracer = tracing.active()
    assert tracer is not None
    call = tracer.served("aisle.test.v1.Test/Do", (), request_id)
    await work
    call.end(grpc.StatusCode.OK)


async def part(name: str) -> None:
    with tracing.span(name, {"aisle.why": "test"}):
        pass


async def test_a_part_of_a_request_is_its_child(spans: InMemorySpanExporter) -> None:
    await asyncio.create_task(request(part("rerank")))
    inner, outer = spans.get_finished_spans()
    assert inner.name == "rerank"
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id


async def test_outside_a_request_there_is_no_part(spans: InMemorySpanExporter) -> None:
    await asyncio.create_task(part("health"))
    assert not spans.get_finished_spans()


async def test_a_part_that_fails_says_how_and_not_with_which_text(spans: InMemorySpanExporter) -> None:
    async def fail() -> None:
        with pytest.raises(ValueError), tracing.span("encode"):
            raise ValueError("what a shopper typed")

    await asyncio.create_task(request(fail()))
    inner = spans.get_finished_spans()[0]
    assert inner.status.status_code is StatusCode.ERROR
    assert (inner.attributes or {})["error.type"] == "ValueError"
    assert "typed" not in inner.to_json()


async def test_a_batch_is_linked_to_every_request_it_serves(spans: InMemorySpanExporter) -> None:
    batcher: Batcher[Any, Any] = Batcher(
        DummyBackend(4), tracer=tracing.batches("engine", {"aisle.model": "dummy"}), name="engine"
    )

    async def submit(rows: int) -> None:
        await batcher.submit([Tokens([1, 2])] * rows)

    # Queued before the thread starts, so that they make one batch.
    batcher._loop = asyncio.get_running_loop()
    calls = [asyncio.create_task(request(submit(rows))) for rows in (1, 2)]
    untraced = asyncio.create_task(submit(1))
    await asyncio.sleep(0)
    await batcher.start()
    await asyncio.gather(*calls, untraced)
    await batcher.close()
    batch = next(span for span in spans.get_finished_spans() if span.name == "engine batch")
    served = [span for span in spans.get_finished_spans() if span.name == "aisle.test.v1.Test/Do"]
    assert {link.context.span_id for link in batch.links} == {span.context.span_id for span in served}
    assert len(batch.links) == 2
    assert batch.parent is not None
    assert batch.parent.span_id == batch.links[0].context.span_id
    assert batch.attributes == {"aisle.model": "dummy", "aisle.batch.items": 4, "aisle.batch.tokens": 8}


async def test_a_batch_for_nobody_who_is_followed_has_no_span(spans: InMemorySpanExporter) -> None:
    batcher: Batcher[Any, Any] = Batcher(DummyBackend(4), tracer=tracing.batches("engine", {}), name="engine")
    await batcher.start()
    await batcher.submit([Tokens([1])])
    await batcher.close()
    assert not spans.get_finished_spans()


async def test_only_a_share_of_requests_is_traced() -> None:
    with traced(sample_ratio=0.25) as spans:
        for _ in range(400):
            await asyncio.create_task(request(part("encode")))
        # Four standard deviations either way.
        assert 65 <= len(spans.get_finished_spans()) / 2 <= 135


def test_off_it_gives_nothing() -> None:
    assert tracing.active() is None
    assert tracing.batches("engine", {}) is None
    assert tracing.trace_id() == ""
    assert tracing.exemplar() is None
    assert tracing.span("a") is tracing.span("b")


def test_off_opentelemetry_is_not_even_imported() -> None:
    program = (
        "import json, sys\n"
        "import services.gateway.__main__, services.query_encoder.__main__, services.reranker.__main__\n"
        "import services.vector_retrieval.__main__, services.user_events.__main__\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('opentelemetry')]))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == []


def test_the_end_of_a_process_sends_what_is_left() -> None:
    with collecting() as collector:
        tracing.start("test", collector.endpoint, 1.0)
        asyncio.run(request(part("rerank"), "r-1"))
        tracing.stop()
        assert {span.name for span in collector.spans} == {"rerank", "aisle.test.v1.Test/Do"}
        assert {span.service for span in collector.spans} == {"test"}
    assert tracing.active() is None


def test_a_collector_that_is_down_does_not_hold_up_the_end() -> None:
    tracing.start("test", "http://127.0.0.1:1", 1.0)
    asyncio.run(request(part("rerank")))
    started = time.monotonic()
    tracing.stop()
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("wrong", ["collector:4317", "grpc://collector:4317", "http://"])
def test_an_endpoint_says_whether_it_is_encrypted(wrong: str) -> None:
    with pytest.raises(ValueError, match="otlp_endpoint"):
        ServiceSettings(port=1, metrics_port=2, otlp_endpoint=wrong)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("127.0.0.1:50051", {"server.address": "127.0.0.1", "server.port": 50051}),
        ("dns:///gateway.shop:50051", {"server.address": "gateway.shop", "server.port": 50051}),
        ("unix:/run/aisle.sock", {"server.address": "/run/aisle.sock"}),
        ("gateway", {"server.address": "gateway"}),
    ],
)
def test_a_target_is_told_as_address_and_port(target: str, told: dict[str, Any]) -> None:
    assert _server(target) == told
