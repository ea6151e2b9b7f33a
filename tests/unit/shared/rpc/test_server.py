"""How a service's process is set up before it serves. The rest of a server is tested on real processes."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import AsyncMock

import grpc
import numpy as np
import pytest
from aisle.encoder.v1 import query_encoder_pb2_grpc
from threadpoolctl import threadpool_info, threadpool_limits

from shared.rpc import server
from shared.rpc.health import HealthMonitor
from shared.settings import ServiceSettings
from tests.unit.shared.rpc.conftest import SERVICE, Request, Response, Scripted

Started = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """What `look` sees at the moment a process that was set up begins to serve."""

    def start(look: Callable[[], Any]) -> Any:
        found: list[Any] = []

        async def serve(settings: ServiceSettings, build: object) -> None:
            found.append(look())

        monkeypatch.setattr(server, "serve", serve)
        server.main("service", ServiceSettings, lambda settings, stack: None)  # type: ignore[arg-type,return-value]
        (only,) = found
        return only

    monkeypatch.setattr("shared.telemetry.logs.configure", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["service", "--port=1", "--metrics_port=2"])
    threshold = gc.get_threshold()
    yield start
    gc.unfreeze()
    gc.set_threshold(*threshold)


def _blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_products_keep_to_the_calling_thread(started: Started) -> None:
    assert np.ones((2, 2)) @ np.ones(2) == pytest.approx(2)
    with threadpool_limits(2, "blas"):
        assert _blas_threads() == {2}
        assert started(_blas_threads) == {1}


def test_the_garbage_collector_leaves_alone_what_stays(started: Started) -> None:
    assert gc.get_freeze_count() == 0
    frozen, threshold = started(lambda: (gc.get_freeze_count(), gc.get_threshold()))
    # Modules' functions and classes alone are tens of thousands.
    assert frozen > 10_000
    assert threshold[0] > 700


async def test_a_call_goes_on_when_its_connection_has_become_too_old(scripted: Scripted) -> None:
    """Longer than a drain would leave it."""
    settings = ServiceSettings(port=50_999, metrics_port=50_998, max_connection_age_s=0.3, grace_s=0.1)
    healthy = AsyncMock(return_value=None)
    served = server.ServedService(
        SERVICE, lambda it: query_encoder_pb2_grpc.add_QueryEncoderServicer_to_server(scripted, it), healthy
    )
    made = server.make_server(settings, [served], HealthMonitor({SERVICE: healthy}, 1.0))
    port = made.add_insecure_port("127.0.0.1:0")
    await made.start()

    async def slow(request: Any, context: Any) -> Response:
        await asyncio.sleep(1.5)
        return Response()

    scripted.behaviour = slow
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await query_encoder_pb2_grpc.QueryEncoderStub(channel).EncodeQueries(Request(), timeout=10)
    finally:
        await made.stop(None)
