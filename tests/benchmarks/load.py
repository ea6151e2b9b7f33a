"""A load of single-query callers, in a process of its own: python -m tests.benchmarks.load … prints one JSON line.

Both protocols keep one connection a few callers share, and neither client decodes the vector it gets: what is compared
is the servers.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from aisle.encoder.v1 import query_encoder_pb2

from tests.benchmarks import texts
from tests.benchmarks.figures import ROOT

_POST = b"POST /embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"

Ask = Callable[[str], Awaitable[None]]


async def run(target: str, callers: int, seconds: float, offset: int) -> dict[str, Any]:
    """`callers` ask one after another for `seconds`."""
    questions = itertools.cycle(texts.queries(20_000)[offset:])
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def caller(ask: Ask) -> None:
        while (started := time.perf_counter()) < until:
            await ask(next(questions))
            latencies.append(time.perf_counter() - started)

    asks, close = await (_http(target, callers) if target.startswith("http://") else _grpc(target, callers))
    started = time.perf_counter()
    await asyncio.gather(*(caller(ask) for ask in asks))
    elapsed = time.perf_counter() - started
    await close()
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "requests_per_s": len(latencies) / elapsed,
        "p50_ms": cuts[49] * 1000,
        "p99_ms": cuts[98] * 1000,
        "requests": len(latencies),
    }


async def _grpc(target: str, callers: int) -> tuple[list[Ask], Callable[[], Awaitable[None]]]:
    channel = grpc.aio.insecure_channel(target)
    method = channel.unary_unary(
        "/aisle.encoder.v1.QueryEncoder/EncodeQueries",
        request_serializer=query_encoder_pb2.EncodeQueriesRequest.SerializeToString,
    )

    async def ask(query: str) -> None:
        await method(query_encoder_pb2.EncodeQueriesRequest(queries=[query]), timeout=30)

    return [ask] * callers, channel.close


async def _http(target: str, callers: int) -> tuple[list[Ask], Callable[[], Awaitable[None]]]:
    host, port = target.removeprefix("http://").split(":")
    writers = []

    async def connected() -> Ask:
        reader, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)

        async def ask(query: str) -> None:
            body = json.dumps({"model": "model", "input": [query]}).encode()
            writer.write(_POST % (len(body), body))
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise RuntimeError(head.split(b"\r\n", 1)[0].decode())
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))

        return ask

    async def close() -> None:
        for writer in writers:
            writer.close()

    return [await connected() for _ in range(callers)], close


async def measured(target: str, *, callers: int, seconds: float, offset: int = 0) -> dict[str, Any]:
    """The result of a load run by another process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.load", target),
        *("--callers", str(callers), "--seconds", str(seconds), "--offset", str(offset)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    if process.returncode:
        raise RuntimeError(error.decode().strip().splitlines()[-1])
    result: dict[str, Any] = json.loads(out)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="host:port of a query encoder, or http://host:port of Infinity")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--offset", type=int, default=0, help="queries to skip, so that runs do not repeat them")
    given = parser.parse_args()
    sys.stdout.write(json.dumps(asyncio.run(run(given.target, given.callers, given.seconds, given.offset))) + "\n")
