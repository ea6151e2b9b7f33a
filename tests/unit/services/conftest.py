"""Model services as their `__main__` wires them, on a tiny bundle and the dummy backend, served in-process."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from shared.bundles import Bundle, BundleKind
from shared.rpc.interceptor import CallInterceptor
from shared.settings import ServiceSettings
from tests.support.tiny_bundle import make_bundle

Serve = Callable[..., Awaitable[grpc.aio.Channel]]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", BundleKind.BI_ENCODER)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve(build, settings)` gives a channel to what `build` serves; everything ends with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(build: Any, settings: ServiceSettings) -> grpc.aio.Channel:
            services = await build(settings, stack)
            assert [await service.check() for service in services] == [None] * len(services)
            server = grpc.aio.server(
                interceptors=[CallInterceptor(settings.default_timeout_s, settings.max_request_bytes)]
            )
            for service in services:
                service.register(server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
            return await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))

        yield start
