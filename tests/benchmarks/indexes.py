"""Indexes to measure: a Milvus server or Milvus Lite behind the retrieval service, filled, flushed and indexed."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from aisle.catalog.v1 import filter_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from aisle.retrieval.v1 import vector_retrieval_pb2_grpc
from pymilvus import MilvusClient
from rich.progress import track

from shared.items import Item
from shared.rpc import embeddings
from shared.rpc.items import item_to_proto
from tests.benchmarks.processes import StartError
from tests.benchmarks.services import Service, service
from tests.benchmarks.vectors import Vectors
from tests.integration.vector_retrieval.servers import MilvusServer, installed

_ROWS = 500
"""An upsert."""
_QUERIES = 32
"""A search."""
_INDEXED_S = 900.0
_MERGING_S = 120.0
"""Without fewer segments: the server looks for some to merge once a minute."""
_CALL_S = 60.0


@dataclass(frozen=True, slots=True)
class Index:
    """A filled one."""

    served: Service
    uri: str
    """Of the store; empty where it lives inside the service."""
    collection: str
    ids: Sequence[str]
    vectors: Vectors
    version: str
    load_s: float
    """From the first upsert to the last row being indexed."""

    @property
    def service_target(self) -> str:
        """For `search_load`."""
        return f"grpc://{self.served.address}"

    @property
    def bare_target(self) -> str:
        """For `search_load`: the same collection without the service."""
        return f"milvus://{self.uri.removeprefix('http://')}/{self.collection}"

    async def merge(self) -> float:
        """Has the server make few large segments of its small ones; how many seconds that took."""
        started = time.monotonic()
        await asyncio.to_thread(_until_merged, self.uri, self.collection, len(self.ids))
        return time.monotonic() - started

    async def segments(self) -> list[int]:
        """Rows of each segment that is searched, the largest first: every search goes through the graph of each."""
        return await asyncio.to_thread(_segments, self.uri, self.collection)

    def positions(self, found: Sequence[Sequence[str]]) -> list[list[int]]:
        """Where in `vectors` the items of these ids are."""
        at = {item_id: position for position, item_id in enumerate(self.ids)}
        return [[at[item_id] for item_id in one] for one in found]

    async def search(
        self,
        asked: Vectors,
        limit: int,
        condition: filter_pb2.Filter | None = None,
        *,
        texts: Sequence[str] = (),
        mode: pb.SearchMode.ValueType = pb.SEARCH_MODE_DENSE,
        fusion: pb.Fusion | None = None,
    ) -> list[list[str]]:
        """Ids found for each of `asked`, which `texts` say in words, best first."""
        found: list[list[str]] = []
        async with grpc.aio.insecure_channel(self.served.address) as channel:
            stub = vector_retrieval_pb2_grpc.VectorRetrievalStub(channel)
            for at in range(0, len(asked), _QUERIES):
                rows = embeddings.pack(asked[at : at + _QUERIES], self.version)
                words = texts[at : at + _QUERIES]
                request = pb.SearchRequest(
                    embeddings=rows, texts=words, mode=mode, fusion=fusion, limit=limit, filter=condition
                )
                answer = await stub.Search(request, timeout=_CALL_S)
                found += [[hit.item.id for hit in one.hits] for one in answer.candidates]
        return found


@contextlib.asynccontextmanager
async def milvus_server() -> AsyncIterator[MilvusServer]:
    """A Milvus server over an empty directory."""
    if not installed():
        raise StartError("no Milvus server on this machine: run `make milvus-server`")
    with tempfile.TemporaryDirectory(prefix="aisle-bench-") as folder:
        server = MilvusServer(Path(folder) / "milvus", quick=False)
        try:
            await asyncio.to_thread(server.start)
            yield server
        finally:
            server.end()


@contextlib.asynccontextmanager
async def indexed(name: str, uri: str, items: Sequence[Item], vectors: Vectors, version: str) -> AsyncIterator[Index]:
    """`items` and their `vectors` in an index of its own at `uri`; in a Milvus Lite of its own where that is empty."""
    with tempfile.TemporaryDirectory(prefix="aisle-bench-") as folder:
        where = uri or str(Path(folder) / "milvus.db")
        # A full comparison of many vectors on Lite takes longer than a shopper would wait.
        flags = ("--uri", where, "--index", name, "--search-timeout-s", str(_CALL_S))
        async with service("vector_retrieval", *flags, log=f"vector_retrieval-{name}") as served:
            started = time.monotonic()
            generation = await _fill(served.address, items, vectors, version, f"loading {len(items):,} items: {name}")
            collection = f"{name}_{generation}"
            if uri:
                await asyncio.to_thread(_until_indexed, uri, collection, len(items))
            else:
                # Lite moves rows out of its write buffer when it has been left alone for a second.
                await asyncio.sleep(5)
            took = time.monotonic() - started
            yield Index(served, uri, collection, [item.id for item in items], vectors, version, took)


async def _fill(address: str, items: Sequence[Item], vectors: Vectors, version: str, title: str) -> str:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = vector_retrieval_pb2_grpc.VectorRetrievalStub(channel)
        for at in track(range(0, len(items), _ROWS), description=title):
            rows = embeddings.pack(vectors[at : at + _ROWS], version)
            request = pb.UpsertItemsRequest(
                items=[item_to_proto(item) for item in items[at : at + _ROWS]], embeddings=rows
            )
            done = await stub.UpsertItems(request, timeout=_CALL_S)
            if done.errors:
                raise StartError(f"{len(done.errors)} items were refused, the first: {done.errors[0].message}")
        status = await stub.GetStatus(pb.GetStatusRequest(), timeout=_CALL_S)
    return str(status.generation)


def _until_indexed(uri: str, collection: str, rows: int) -> None:
    """Returns when all `rows` are searched through their graph: a row in a segment that still grows is compared one
    by one, which is exact, and slow."""
    with contextlib.closing(MilvusClient(uri)) as client:
        client.flush(collection, timeout=_INDEXED_S)
        _load(client, collection, rows)


def _until_merged(uri: str, collection: str, rows: int) -> None:
    """Asks until nothing is merged any more: what one round has made, the next one merges on."""
    with contextlib.closing(MilvusClient(uri)) as client:
        fewest, since = len(_sizes(client, collection)), time.monotonic()
        while time.monotonic() - since < _MERGING_S:
            job = client.compact(collection, timeout=_CALL_S)
            _wait(lambda job=job: client.get_compaction_state(job) == "Completed", f"{collection} was not merged")
            _load(client, collection, rows)
            if (left := len(_sizes(client, collection))) < fewest:
                fewest, since = left, time.monotonic()
            time.sleep(10)


def _load(client: MilvusClient, collection: str, rows: int) -> None:
    _wait(lambda: _built(client.describe_index(collection, "vector"), rows), f"{collection} was not indexed")
    # The server takes up new graphs when it next looks for them; loaded anew, it begins with them.
    client.release_collection(collection)
    client.load_collection(collection, timeout=_INDEXED_S)


def _wait(done: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + _INDEXED_S
    while not done():
        if time.monotonic() > until:
            raise StartError(f"{otherwise} in {_INDEXED_S:g} s")
        time.sleep(1)


def _segments(uri: str, collection: str) -> list[int]:
    with contextlib.closing(MilvusClient(uri)) as client:
        return _sizes(client, collection)


def _sizes(client: MilvusClient, collection: str) -> list[int]:
    return sorted((segment.num_rows for segment in client.list_loaded_segments(collection)), reverse=True)


def _built(index: Mapping[str, Any], rows: int) -> bool:
    return index["state"] == "Finished" and int(index["indexed_rows"]) >= rows
