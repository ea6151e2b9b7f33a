import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from milvus_lite.db import MilvusLite
from milvus_lite.engine import flush
from milvus_lite.schema.types import CollectionSchema, DataType, FieldSchema

from services.vector_retrieval import lite
from services.vector_retrieval.lite import Flusher, Gate, _drop_torn_indexes


async def test_readers_share_and_a_writer_is_alone() -> None:
    gate = Gate()
    inside: list[str] = []
    most_readers = 0

    async def read() -> None:
        nonlocal most_readers
        async with gate.reading():
            inside.append("reader")
            assert "writer" not in inside
            most_readers = max(most_readers, len(inside))
            await asyncio.sleep(0.001)
            inside.remove("reader")

    async def write() -> None:
        async with gate.writing():
            assert inside == []
            inside.append("writer")
            await asyncio.sleep(0.001)
            inside.remove("writer")

    await asyncio.gather(*(read() for _ in range(5)), write(), *(read() for _ in range(5)), write())
    assert most_readers > 1


async def test_a_waiting_writer_goes_before_later_readers() -> None:
    gate = Gate()
    order: list[str] = []

    async def note(name: str, *, write: bool) -> None:
        async with gate.writing() if write else gate.reading():
            order.append(name)

    async with gate.reading():
        writer = asyncio.create_task(note("writer", write=True))
        await asyncio.sleep(0)
        reader = asyncio.create_task(note("later reader", write=False))
        await asyncio.sleep(0.01)
        assert order == []
    await asyncio.gather(writer, reader)
    assert order == ["writer", "later reader"]


@pytest.mark.parametrize("write", [True, False])
async def test_whoever_gives_up_waiting_leaves_the_gate_usable(write: bool) -> None:
    gate = Gate()

    async def pass_through() -> None:
        async with gate.writing() if write else gate.reading():
            pass

    async with gate.writing():
        waiting = asyncio.create_task(pass_through())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1), gate.writing():
        pass
    async with asyncio.timeout(1), gate.reading():
        pass


class Flushes:
    def __init__(self) -> None:
        self.count = 0
        self.fail = False

    async def __call__(self) -> None:
        self.count += 1
        if self.fail:
            raise OSError("disk full")


async def test_flushes_after_enough_rows() -> None:
    flush = Flushes()
    flusher = Flusher(flush, rows=10, quiet_s=60)
    flusher.wrote(9)
    await asyncio.sleep(0.02)
    assert flush.count == 0
    flusher.wrote(1)
    await asyncio.sleep(0.02)
    assert flush.count == 1
    await flusher.close()


async def test_flushes_when_writes_go_quiet() -> None:
    flush = Flushes()
    flusher = Flusher(flush, rows=10, quiet_s=0.05)
    for _ in range(3):
        flusher.wrote(1)
        await asyncio.sleep(0.02)
        assert flush.count == 0
    await asyncio.sleep(0.1)
    assert flush.count == 1
    await asyncio.sleep(0.1)
    assert flush.count == 1
    await flusher.close()


async def test_a_failing_flush_is_tried_again_with_the_next_rows() -> None:
    flush = Flushes()
    flush.fail = True
    flusher = Flusher(flush, rows=1, quiet_s=60)
    flusher.wrote(1)
    await asyncio.sleep(0.02)
    flush.fail = False
    flusher.wrote(1)
    await asyncio.sleep(0.02)
    assert flush.count == 2
    await flusher.close()


def test_of_each_folder_the_indexes_that_were_written_last_are_dropped_and_nothing_else(tmp_path: Path) -> None:
    def write(file: str, at_s: float) -> None:
        path = tmp_path / "collections" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (at_s, at_s))

    write("one/partitions/_default/indexes/old.idx", 100.0)
    write("one/partitions/_default/indexes/just-before.sidx", 200.0)
    write("one/partitions/_default/indexes/last.idx", 200.5)
    write("one/partitions/_default/data/last.parquet", 300.0)
    write("two/partitions/_default/indexes/alone.idx", 50.0)
    (tmp_path / "collections/three/partitions/_default/indexes").mkdir(parents=True)
    _drop_torn_indexes(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["last.parquet", "old.idx"]


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MilvusLite]:
    """Two collections of a row each, on a disk that has become full since."""
    lite._end_at_io_errors()
    monkeypatch.setattr(lite.os, "_exit", Mock(side_effect=SystemExit))
    database = MilvusLite(str(tmp_path / "milvus.db"))
    fields = [
        FieldSchema(name="id", dtype=DataType.VARCHAR, is_primary=True, max_length=10),
        FieldSchema(name="vector", dtype=DataType.FLOAT_VECTOR, dim=2),
    ]
    for name in ("kept", "dropped"):
        database.create_collection(name, CollectionSchema(fields=fields)).insert([{"id": "a", "vector": [1.0, 0.0]}])
    with monkeypatch.context() as patch:
        patch.setattr(flush, "write_data_file", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        yield database
    database.close()


def test_a_generation_can_be_dropped_to_make_room(full: MilvusLite) -> None:
    # As its server calls it.
    full.drop_collection("dropped", database_name="default")
    assert full.list_collections() == ["kept"]


def test_a_collection_that_cannot_be_read_leaves_the_others_alone(tmp_path: Path) -> None:
    for name, manifest in {"damaged": "", "whole": '{"active_wal_number": 2}'}.items():
        folder = tmp_path / "collections" / name
        (folder / "wal").mkdir(parents=True)
        (folder / "manifest.json").write_text(manifest)
        for number in (1, 2):
            (folder / "wal" / f"wal_data_00000{number}.arrow").touch()
    lite._drop_flushed_logs(tmp_path)
    left = sorted(log.relative_to(tmp_path / "collections").as_posix() for log in tmp_path.rglob("*.arrow"))
    assert left == [
        "damaged/wal/wal_data_000001.arrow",
        "damaged/wal/wal_data_000002.arrow",
        "whole/wal/wal_data_000002.arrow",
    ]
