"""A load of vector searches, in a process of its own: python -m tests.benchmarks.search_load … prints one JSON line.

Both targets fetch the same: ids, distances and payloads of the nearest items. Neither client reads the items.
"""

import argparse
import asyncio
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from pymilvus import MilvusClient

from shared.rpc import embeddings
from tests.benchmarks import load
from tests.benchmarks.vectors import Vectors

EF = 256
"""As the service has it (`hnsw_ef`), unless more hits are asked for."""


@dataclass(frozen=True, slots=True)
class Load:
    """`callers` ask for the `limit` nearest to `vectors`, one after another, for `seconds`."""

    vectors: Vectors
    version: str
    limit: int
    callers: int
    seconds: float

    async def of_service(self, address: str) -> tuple[list[float], float]:
        """Latencies and elapsed time of calls to a retrieval service, over one channel as the gateway's."""
        questions = itertools.cycle(self.vectors)
        async with grpc.aio.insecure_channel(address) as channel:
            method = channel.unary_unary(
                "/aisle.retrieval.v1.VectorRetrieval/Search",
                request_serializer=pb.SearchRequest.SerializeToString,
                response_deserializer=pb.SearchResponse.FromString,
            )

            async def ask() -> None:
                asked = embeddings.pack(next(questions)[None], self.version)
                found = await method(pb.SearchRequest(embeddings=asked, limit=self.limit), timeout=30)
                self._check(len(found.candidates[0].hits))

            return await load.by_tasks([ask] * self.callers, self.seconds)

    def of_milvus(self, uri: str, collection: str) -> tuple[list[float], float]:
        """The same by bare pymilvus, a thread a caller over one client."""
        client = MilvusClient(uri)
        questions = itertools.cycle(self.vectors)

        def ask() -> None:
            (found,) = client.search(
                collection,
                data=[next(questions).tobytes()],
                anns_field="vector",
                limit=self.limit,
                output_fields=["payload"],
                search_params={"metric_type": "COSINE", "params": {"ef": max(EF, self.limit)}},
                consistency_level="Bounded",
            )
            self._check(len(found))

        try:
            return load.by_threads(ask, self.callers, self.seconds)
        finally:
            client.close()

    def _check(self, hits: int) -> None:
        if hits != self.limit:
            raise load.LoadError(f"{hits} hits came back for {self.limit}")


class Loads:
    """Loads that each begin where another part of the queries in the file `vectors` is."""

    def __init__(self, vectors: Path, version: str, seconds: float) -> None:
        self._options = ("--vectors", str(vectors), "--model-version", version, "--seconds", str(seconds))
        self._offsets: Iterator[int] = itertools.count(0, 977)

    async def of(self, target: str, *, callers: int, limit: int) -> dict[str, Any]:
        """The result of one."""
        own = ("--callers", str(callers), "--limit", str(limit), "--offset", str(next(self._offsets)))
        return await load.elsewhere("tests.benchmarks.search_load", target, *self._options, *own)


def _run(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="grpc://host:port or milvus://host:port/collection")
    parser.add_argument("--vectors", type=Path, required=True, help="a .npy file of query vectors")
    parser.add_argument("--model-version", required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--offset", type=int, default=0, help="queries to skip, so that runs do not repeat them")
    given = parser.parse_args(arguments)
    rows = np.roll(np.load(given.vectors), -given.offset, axis=0)
    asked = Load(rows, given.model_version, given.limit, given.callers, given.seconds)
    address = urlsplit(given.target)
    match address.scheme:
        case "grpc":
            taken, elapsed = asyncio.run(asked.of_service(address.netloc))
        case "milvus":
            taken, elapsed = asked.of_milvus(f"http://{address.netloc}", address.path.strip("/"))
        case other:
            raise ValueError(f"{given.target}: a scheme of grpc or milvus, not {other}")
    return load.summary(taken, elapsed)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_run()) + "\n")
