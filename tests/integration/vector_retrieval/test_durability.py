"""What was acknowledged is there after a kill, of the service and of the server; and a store that is gone is told
apart from one that is empty."""

import asyncio
import itertools
import os
import resource
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from milvus_lite.engine import collection

from services.vector_retrieval.schema import Row
from services.vector_retrieval.settings import VectorRetrievalSettings
from services.vector_retrieval.store import Store
from shared.items import Item
from shared.rpc import embeddings
from tests.integration.vector_retrieval.processes import ServiceProcess, running
from tests.integration.vector_retrieval.servers import MilvusServer, installed

DIMENSIONS = 32
BATCH = 20
FULL_BYTES = 32_000
"""More than a service logs, and less than 400 rows take."""


def upsert(service: ServiceProcess, ids: list[str], timeout_s: float = 10) -> int:
    vectors = np.random.default_rng(0).normal(size=(len(ids), DIMENSIONS)).astype(np.float32)
    request = pb.UpsertItemsRequest(
        items=[item_pb2.Item(id=i, title=f"title of {i}") for i in ids], embeddings=embeddings.pack(vectors, "m")
    )
    return service.stub.UpsertItems(request, timeout=timeout_s).accepted


def search(service: ServiceProcess, timeout_s: float = 10) -> pb.SearchResponse:
    vector = np.ones((1, DIMENSIONS), dtype=np.float32)
    return service.stub.Search(pb.SearchRequest(embeddings=embeddings.pack(vector, "m"), limit=10), timeout=timeout_s)


class Writer(threading.Thread):
    """Writes batch after batch until it is refused, and remembers what was acknowledged."""

    def __init__(self, service: ServiceProcess) -> None:
        super().__init__()
        self.service = service
        self.acknowledged: list[str] = []

    def run(self) -> None:
        for batch in itertools.count():
            ids = [f"item-{batch}-{i}" for i in range(BATCH)]
            try:
                upsert(self.service, ids)
            except grpc.RpcError:
                return
            self.acknowledged += ids

    def wait_for(self, items: int) -> None:
        deadline = time.monotonic() + 20
        while len(self.acknowledged) < items:
            assert self.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)


def missing(service: ServiceProcess, ids: list[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(ids), 1000):
        response = service.stub.GetItems(pb.GetItemsRequest(ids=ids[start : start + 1000]), timeout=10)
        found.update(item.id for item in response.items)
    return set(ids) - found


def test_lite_keeps_what_it_acknowledged_when_killed(tmp_path: Path) -> None:
    uri = str(tmp_path / "milvus.db")
    # A small buffer, so that the kill may fall into a flush as well.
    with running(uri, tmp_path / "first.log", **{"lite-flush-rows": "100"}) as service:
        writer = Writer(service)
        writer.start()
        writer.wait_for(800)
        service.process.kill()
        writer.join(timeout=20)
    with running(uri, tmp_path / "second.log") as service:
        assert missing(service, writer.acknowledged) == set()
        assert len(search(service).candidates[0].hits) == 10
        status = service.stub.GetStatus(pb.GetStatusRequest(), timeout=5)
        # The batch that was being written may be there too, as a whole or in part.
        assert 0 <= status.items - len(writer.acknowledged) <= BATCH


def written_indexes(path: Path) -> list[Path]:
    """Index files of the one collection in `path`, once the last of them is there: `price` comes last."""
    deadline = time.monotonic() + 20
    while not any(path.glob("collections/*/partitions/*/indexes/*.price.inverted.sidx")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return sorted(path.glob("collections/*/partitions/*/indexes/*"))


@pytest.mark.parametrize("torn", ["*.group_id.inverted.sidx", "*.vector.hnsw.idx"])
def test_lite_comes_back_when_it_was_killed_while_it_wrote_an_index(tmp_path: Path, torn: str) -> None:
    """A kill rarely falls there, so half of the file is taken away by hand."""
    path = tmp_path / "milvus.db"
    ids = [f"item-{at}" for at in range(120)]
    with running(str(path), tmp_path / "first.log", **{"lite-flush-rows": "100"}) as service:
        upsert(service, ids)
        (index,) = (each for each in written_indexes(path) if each.match(torn))
        service.process.kill()
        service.process.wait()
    whole = index.stat().st_size
    with index.open("r+b") as file:
        file.truncate(whole // 2)
    with running(str(path), tmp_path / "second.log") as service:
        assert missing(service, ids) == set()
        assert len(search(service).candidates[0].hits) == 10
        service.process.terminate()
        service.process.wait()
    assert index.stat().st_size == whole
    assert not (path / "aisle-open").exists()


def test_lite_counts_once_what_it_flushed_when_it_was_killed_before_it_removed_the_log(tmp_path: Path) -> None:
    """A kill rarely falls there, so the log is put back by hand."""
    path = tmp_path / "milvus.db"
    ids = [f"item-{at}" for at in range(120)]
    with running(str(path), tmp_path / "first.log", **{"lite-flush-rows": "100"}) as service:
        upsert(service, ids[:80])
        logs = {log: log.read_bytes() for log in path.glob("collections/*/wal/*.arrow")}
        upsert(service, ids[80:])
        written_indexes(path)
        service.process.kill()
        service.process.wait()
    assert logs
    for log, content in logs.items():
        assert not log.exists()
        log.write_bytes(content)
    with running(str(path), tmp_path / "second.log") as service:
        assert service.stub.GetStatus(pb.GetStatusRequest(), timeout=5).items == len(ids)
        assert missing(service, ids) == set()
        assert not any(log.exists() for log in logs)


def test_lite_keeps_what_it_acknowledged_when_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "milvus.db"
    ids = [f"item-{at}" for at in range(800)]
    with running(str(path), tmp_path / "first.log") as service:
        upsert(service, ids[:400])
        upsert(service, ids[400:])
        # Its log is whole; the segment into which the flush after a second writes the rows is not to be.
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (FULL_BYTES, FULL_BYTES))
        assert service.process.wait(timeout=20) == os.EX_IOERR
    assert "make room" in service.log.read_text()
    with running(str(path), tmp_path / "second.log") as service:
        assert service.stub.GetStatus(pb.GetStatusRequest(), timeout=5).items == len(ids)
        assert missing(service, ids) == set()
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (FULL_BYTES, FULL_BYTES))
        with pytest.raises(grpc.RpcError):
            upsert(service, [f"late-{at}" for at in range(800)])
        assert service.process.wait(timeout=20) == os.EX_IOERR
    with running(str(path), tmp_path / "third.log") as service:
        assert missing(service, ids) == set()


async def test_lite_opens_a_collection_once_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = VectorRetrievalSettings(uri=str(tmp_path / "milvus.db"), search_timeout_s=0.2)
    vector = np.ones(DIMENSIONS, dtype=np.float32)
    item = Item(id="a", title="a", updated_at=datetime(2026, 1, 1, tzinfo=UTC))
    store = await Store.open(settings)
    await store.upsert([Row(item, vector, b"a")], "m")
    await store.close()
    recover, opened = collection.execute_recovery, list[str]()

    def slow(*, data_dir: str, **more: Any) -> Any:
        opened.append(data_dir)
        time.sleep(3 * settings.search_timeout_s)
        return recover(data_dir=data_dir, **more)

    monkeypatch.setattr(collection, "execute_recovery", slow)
    store = await Store.open(settings)
    await asyncio.gather(*(store.check() for _ in range(3)))
    assert (await store.get(["a"])).payloads == [b"a"]
    await store.close()
    assert len(opened) == len(set(opened)) > 0


def test_lite_refuses_a_second_process(tmp_path: Path) -> None:
    uri = str(tmp_path / "milvus.db")
    with running(uri, tmp_path / "first.log", **{"lite-flush-rows": "100"}) as first:
        upsert(first, [f"item-{at}" for at in range(120)])
        indexes = written_indexes(tmp_path / "milvus.db")
        second = ServiceProcess(uri, tmp_path / "second.log")
        assert second.process.wait(timeout=20) == 1
        second.end()
        log = second.log.read_text()
        assert "is open in another process" in log
        assert "Traceback" not in log
        assert first.serving()
        assert all(index.exists() for index in indexes)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[MilvusServer]:
    if not installed():
        pytest.skip("no Milvus server on this machine: run `make milvus-server`")
    server = MilvusServer(tmp_path / "milvus")
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.mark.milvus_server
@pytest.mark.timeout(120)
def test_server_killed_under_load(own_server: MilvusServer, tmp_path: Path) -> None:
    with running(own_server.uri, tmp_path / "service.log") as service:
        upsert(service, ["first"])
        writer = Writer(service)
        writer.start()
        writer.wait_for(400)
        own_server.end()
        writer.join(timeout=30)

        for _ in range(5):
            started = time.monotonic()
            with pytest.raises(grpc.RpcError) as refused:
                search(service)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            details = dict(refused.value.trailing_metadata())["grpc-status-details-bin"]
            assert b"google.rpc.RetryInfo" in details
            assert time.monotonic() - started < 3
        service.wait_until(serving=False)

        own_server.start()
        service.wait_until(serving=True, timeout_s=60)
        assert missing(service, writer.acknowledged) == set()
        assert len(search(service).candidates[0].hits) == 10
        assert upsert(service, ["after"]) == 1
        assert "Traceback" not in service.log.read_text()


@pytest.mark.milvus_server
def test_service_starts_without_its_server(own_server: MilvusServer, tmp_path: Path) -> None:
    own_server.end()
    service = ServiceProcess(own_server.uri, tmp_path / "service.log")
    try:
        service.wait_until(serving=False)
        time.sleep(1)
        with pytest.raises(grpc.RpcError) as refused:
            search(service)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        own_server.start()
        service.wait_until(serving=True)
        assert len(search(service).candidates) == 1
    finally:
        service.end()
