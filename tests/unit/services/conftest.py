"""Model services as their `__main__` wires them, on a tiny bundle and the dummy backend, served in-process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from shared.bundles import Bundle, BundleKind
from shared.rpc.health import HealthMonitor
from shared.rpc.server import make_server
from shared.settings import ServiceSettings
from tests.support.tiny_bundle import make_bundle

Listen = Callable[..., Awaitable[str]]
Serve = Callable[..., Awaitable[grpc.aio.Channel]]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", BundleKind.BI_ENCODER)


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """`await listen(build, settings)` gives the address of what `build` serves, beside its health; everything ends with
    the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(build: Any, settings: ServiceSettings) -> str:
            services = await build(settings, stack)
            assert [await service.check() for service in services] == [None] * len(services)
            monitor = HealthMonitor({service.name: service.check for service in services}, settings.health_interval_s)
            server = make_server(settings, services, monitor)
            await monitor.open()
            watching = asyncio.create_task(monitor.run())
            stack.callback(watching.cancel)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
            return f"127.0.0.1:{port}"

        yield start


@pytest.fixture
async def serve(listen: Listen) -> AsyncIterator[Serve]:
    """`await serve(build, settings)` gives a channel to what `build` serves (see `listen`)."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(build: Any, settings: ServiceSettings) -> grpc.aio.Channel:
            return await stack.enter_async_context(grpc.aio.insecure_channel(await listen(build, settings)))

        yield start
