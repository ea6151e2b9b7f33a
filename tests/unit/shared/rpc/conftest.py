"""A real in-process server behind the interceptor, whose one behaviour a test sets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from aisle.encoder.v1 import query_encoder_pb2, query_encoder_pb2_grpc
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc

from shared.rpc.client import Dependency
from shared.rpc.interceptor import CallInterceptor

SERVICE = "aisle.encoder.v1.QueryEncoder"
MAX_REQUEST_BYTES = 2_000
DEFAULT_TIMEOUT_S = 0.2

Request = query_encoder_pb2.EncodeQueriesRequest
Response = query_encoder_pb2.EncodeQueriesResponse


class Scripted(query_encoder_pb2_grpc.QueryEncoderServicer, catalog_pb2_grpc.CatalogServicer):
    """Does what `behaviour` does, for a unary and for a streaming method."""

    def __init__(self) -> None:
        self.behaviour: Callable[[Any, Any], Awaitable[Any]] = self._answer

    @staticmethod
    async def _answer(request: Any, context: Any) -> Response:
        return Response()

    async def EncodeQueries(self, request: Request, context: Any) -> Response:
        response: Response = await self.behaviour(request, context)
        return response

    async def GetModel(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def ImportItems(self, request_iterator: Any, context: Any) -> AsyncIterator[catalog_pb2.ImportItemsResponse]:
        async for request in request_iterator:
            await self.behaviour(request, context)
            yield catalog_pb2.ImportItemsResponse(rows=len(request.items))


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
async def address(scripted: Scripted) -> AsyncIterator[str]:
    server = grpc.aio.server(interceptors=[CallInterceptor(DEFAULT_TIMEOUT_S, MAX_REQUEST_BYTES)])
    query_encoder_pb2_grpc.add_QueryEncoderServicer_to_server(scripted, server)
    catalog_pb2_grpc.add_CatalogServicer_to_server(scripted, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
async def dependency(address: str) -> AsyncIterator[Dependency]:
    connected = Dependency("query_encoder", SERVICE, address)
    yield connected
    await connected.close()


@pytest.fixture
async def stub(dependency: Dependency) -> Any:
    return query_encoder_pb2_grpc.QueryEncoderStub(dependency.channel)


async def forever(request: Any, context: Any) -> Response:
    await asyncio.Event().wait()
    return Response()
