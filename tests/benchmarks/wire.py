"""One query to a server and back, by the protocol it speaks: as lean a client for each as Python allows.

No client decodes the answer it gets: what is compared is the servers.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import grpc
from aisle.encoder.v1 import query_encoder_pb2
from aisle.gateway.v1 import gateway_pb2

Ask = Callable[[str], Awaitable[None]]

TRITON_MODEL = "encoder"

_POST = "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"


class AnswerError(Exception):
    """A server answered, but not with a vector."""


@asynccontextmanager
async def callers(target: str, count: int) -> AsyncIterator[list[Ask]]:
    """`count` callers of `grpc://…` (a query encoder), `gateway://…`, `infinity://…` or `triton://…` (HTTP)."""
    address = urlsplit(target)
    match address.scheme:
        case "grpc" | "gateway" as kind:
            async with grpc.aio.insecure_channel(address.netloc) as channel:
                yield [_encoding(channel) if kind == "grpc" else _searching(channel)] * count
        case "infinity":
            async with _connections(address.netloc, count, "/embeddings", _infinity) as asks:
                yield asks
        case "triton":
            async with _connections(address.netloc, count, f"/v2/models/{TRITON_MODEL}/infer", _triton) as asks:
                yield asks
        case other:
            raise ValueError(f"{target}: a scheme of grpc, gateway, infinity or triton, not {other}")


def _searching(channel: grpc.aio.Channel) -> Ask:
    method = channel.unary_unary(
        "/aisle.gateway.v1.Gateway/Search", request_serializer=gateway_pb2.SearchRequest.SerializeToString
    )

    async def ask(query: str) -> None:
        await method(gateway_pb2.SearchRequest(query=query), timeout=30)

    return ask


def _encoding(channel: grpc.aio.Channel) -> Ask:
    method = channel.unary_unary(
        "/aisle.encoder.v1.QueryEncoder/EncodeQueries",
        request_serializer=query_encoder_pb2.EncodeQueriesRequest.SerializeToString,
    )

    async def ask(query: str) -> None:
        await method(query_encoder_pb2.EncodeQueriesRequest(queries=[query]), timeout=30)

    return ask


def _infinity(query: str) -> bytes:
    return json.dumps({"model": "model", "input": [query]}).encode()


def _triton(query: str) -> bytes:
    return json.dumps(
        {
            "inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [query]}],
            # As JSON the vector would cost its server more than the model does.
            "outputs": [{"name": "vector", "parameters": {"binary_data": True}}],
        }
    ).encode()


@asynccontextmanager
async def _connections(host: str, count: int, path: str, body: Callable[[str], bytes]) -> AsyncIterator[list[Ask]]:
    """One kept-alive connection a caller."""
    name, port = host.split(":")
    streams = [await asyncio.open_connection(name, int(port)) for _ in range(count)]
    try:
        yield [_http(host, path, body, reader, writer) for reader, writer in streams]
    finally:
        for _, writer in streams:
            writer.close()


def _http(
    host: str, path: str, body: Callable[[str], bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Ask:
    async def ask(query: str) -> None:
        content = body(query)
        writer.write(_POST.format(path=path, host=host, size=len(content)).encode() + content)
        head = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        length = next(line for line in head if line.startswith(b"content-length:"))
        answer = await reader.readexactly(int(length.split(b":")[1]))
        if b" 200 " not in head[0]:
            raise AnswerError(f"{head[0].decode()}: {answer[:200].decode(errors='replace')}")

    return ask
