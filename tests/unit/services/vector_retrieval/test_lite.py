import asyncio
import os
from pathlib import Path

import pytest

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
