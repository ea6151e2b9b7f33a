"""The query encoder under more than it can do, as its clients and their balancers see it."""

import asyncio
import contextlib
from collections import Counter
from functools import partial

import grpc
import pytest
from aisle.encoder.v1 import query_encoder_pb2, query_encoder_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.query_encoder.__main__ import build
from services.query_encoder.settings import QueryEncoderSettings
from shared.bundles import Bundle
from shared.inference import BackendName, Batcher, NoObserver, Priority, Timing
from shared.inference.backends.dummy import DummyBackend
from shared.rpc.embeddings import unpack
from shared.rpc.status import PUSHBACK_KEY
from shared.serving import encoder as serving
from tests.support.tiny_bundle import LETTERS
from tests.unit.services.conftest import Listen, Serve

CALLERS, CHANNELS = 2_000, 4
ROWS = 64
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
NAME = "aisle.encoder.v1.QueryEncoder"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
Request = query_encoder_pb2.EncodeQueriesRequest


class Depths(NoObserver):
    def __init__(self) -> None:
        self.most = 0

    def queue_depth(self, priority: Priority, rows: int) -> None:
        self.most = max(self.most, rows)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> DummyBackend:
    """What the service loads."""
    dummy = DummyBackend()
    monkeypatch.setattr(serving, "open_backend", lambda *_, **__: dummy)
    return dummy


@pytest.fixture
def settings(bundle: Bundle) -> QueryEncoderSettings:
    return QueryEncoderSettings(
        bundle=str(bundle.path), backend=BackendName.DUMMY, queue_rows=ROWS, cache_bytes=0, health_interval_s=0.02
    )


def query(number: int) -> str:
    return "".join(LETTERS[int(digit)] for digit in str(number))


async def test_two_thousand_callers_are_answered_or_told_when_to_come_back(
    listen: Listen, settings: QueryEncoderSettings, backend: DummyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    depths = Depths()
    monkeypatch.setattr(serving, "PrometheusObserver", lambda bundle: depths)
    address = await listen(build, settings)
    warm = len(backend.seen)
    backend.delay_s = 0.05
    # However slowly this machine sends them: nothing is answered before the queue was full.
    backend.gate.clear()
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=OWN_CONNECTION))
            for _ in range(CHANNELS)
        ]
        stubs = [query_encoder_pb2_grpc.QueryEncoderStub(channel) for channel in channels]

        async def call(number: int) -> str:
            try:
                answer = await stubs[number % CHANNELS].EncodeQueries(Request(queries=[query(number)]), timeout=20)
            except grpc.aio.AioRpcError as error:
                backend.gate.set()
                pushback = dict(error.trailing_metadata() or ()).get(PUSHBACK_KEY, "0")
                return f"{error.code().name} {0 < int(pushback) <= 5_000}"
            return f"OK {unpack(answer.embeddings).shape}"

        async with asyncio.timeout(20):
            ends = Counter(await asyncio.gather(*map(call, range(CALLERS))))
            assert set(ends) == {"OK (1, 8)", "RESOURCE_EXHAUSTED True"}
            assert depths.most <= ROWS
            assert len(backend.seen) - warm == ends["OK (1, 8)"] >= ROWS
            assert await call(CALLERS) == "OK (1, 8)"


async def test_a_stalled_backend_turns_health_off_and_on(
    serve: Serve, settings: QueryEncoderSettings, backend: DummyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = Timing(stall_after_s=0.2, check_every_s=0.02)
    monkeypatch.setattr(serving, "Batcher", partial(Batcher, timing=timing))
    channel = await serve(build, settings)
    health = health_pb2_grpc.HealthStub(channel)

    async def until(service: str, status: int) -> None:
        async with asyncio.timeout(10):
            async for answer in health.Watch(health_pb2.HealthCheckRequest(service=service)):
                if answer.status == status:
                    return

    for service in (NAME, "", "replica"):
        await until(service, SERVING)
    backend.gate.clear()
    call = query_encoder_pb2_grpc.QueryEncoderStub(channel).EncodeQueries(Request(queries=["lamp"]))
    for service in (NAME, "", "replica"):
        await until(service, NOT_SERVING)
    assert (await health.Check(health_pb2.HealthCheckRequest(service="live"))).status == SERVING
    backend.gate.set()
    assert unpack((await call).embeddings).shape == (1, 8)
    for service in (NAME, "", "replica"):
        await until(service, SERVING)
