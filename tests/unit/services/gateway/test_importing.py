import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.budgets import StageBudget
from services.gateway.catalog import CatalogWriter, ItemRow, draft
from services.gateway.importing import Importer, ImportPolicy, Progress, chunks
from services.gateway.ports import Priority, RowError
from services.gateway.retry import Patience
from shared.errors import AisleError, InternalError, InvalidArgumentError, OverloadedError, UnavailableError
from tests.unit.services.gateway.fakes import FakeClock, FakeItemEncoder, FakeRetrieval, Scripted, hang, row


def importer(
    retrieval: FakeRetrieval, encoder: FakeItemEncoder | None = None, clock: FakeClock | None = None, **changes: Any
) -> Importer:
    clock = clock or FakeClock()
    defaults: dict[str, Any] = {
        "chunk_items": 4,
        "chunk_bytes": 1000,
        "window": 3,
        "encode": StageBudget(60.0),
        "write": StageBudget(60.0),
        "patience": Patience(30.0, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0),
    }
    policy = ImportPolicy(**{**defaults, **changes})
    return Importer(CatalogWriter(encoder or FakeItemEncoder(), retrieval), policy, remaining_s=lambda: None)


async def stream(*batches: Sequence[ItemRow]) -> AsyncIterator[Sequence[ItemRow]]:
    for batch in batches:
        yield batch


def rows(count: int, start: int = 0) -> list[ItemRow]:
    return [row(f"{at:04}") for at in range(start, start + count)]


async def collect(progress: AsyncIterator[Progress]) -> list[Progress]:
    return [p async for p in progress]


async def collect_until_it_fails(progress: AsyncIterator[Progress]) -> tuple[list[Progress], AisleError]:
    seen = []
    try:
        async for one in progress:
            seen.append(one)  # noqa: PERF401 -- a comprehension would lose what came before the error
    except AisleError as error:
        return seen, error
    raise AssertionError("it did not fail")


async def test_acknowledges_each_batch_in_order_with_running_counts() -> None:
    encoder, retrieval = FakeItemEncoder(), FakeRetrieval()
    acks = await collect(importer(retrieval, encoder).run(stream(rows(10), rows(3, 10), rows(1, 13))))
    assert acks == [(10, 10, 0, []), (13, 13, 0, []), (14, 14, 0, [])]
    assert [len(items) for items in retrieval.written] == [4, 4, 2, 3, 1]
    assert [item for items in retrieval.written for item in items] == [f"item {at:04}" for at in range(14)]
    assert set(encoder.priorities) == {Priority.BULK}


async def test_an_empty_stream() -> None:
    assert await collect(importer(FakeRetrieval()).run(stream())) == []


async def test_bad_rows_fail_alone_with_their_position_in_the_stream() -> None:
    def errors(items: Sequence[object]) -> list[RowError]:
        return [RowError(at, "", "", "ENCODE_FAILED", "no") for at, i in enumerate(items) if i == "item 0012"]

    batch = [*rows(2, 10), row("x", broken="title"), *rows(1, 12)]
    acks = await collect(importer(FakeRetrieval(), FakeItemEncoder(errors=errors)).run(stream(rows(10), batch)))
    assert acks[1][:3] == (14, 12, 2)
    assert [(e.row, e.item_id, e.field, e.reason) for e in acks[1].errors] == [
        (12, "x", "title", "INVALID_ARGUMENT"),
        (13, "0012", "", "ENCODE_FAILED"),
    ]


async def test_a_batch_of_nothing_but_bad_rows_is_acknowledged() -> None:
    retrieval = FakeRetrieval()
    acks = await collect(importer(retrieval).run(stream([row("a", broken="title")] * 5, rows(1))))
    assert [a[:3] for a in acks] == [(5, 0, 5), (6, 1, 5)]


async def test_of_equal_ids_in_a_batch_the_last_is_written() -> None:
    retrieval = FakeRetrieval()
    acks = await collect(importer(retrieval).run(stream([row("a", payload="old"), row("a", payload="new")])))
    assert (acks, retrieval.written) == ([(2, 2, 0, [])], [["new"]])


async def test_a_batch_is_acknowledged_while_the_importer_waits_for_that() -> None:
    sent: asyncio.Queue[list[ItemRow] | None] = asyncio.Queue()

    async def batches() -> AsyncIterator[Sequence[ItemRow]]:
        while (batch := await sent.get()) is not None:
            yield batch

    sent.put_nowait(rows(2))
    async with aclosing(importer(FakeRetrieval()).run(batches())) as acks:
        assert await anext(acks) == (2, 2, 0, [])
        sent.put_nowait(rows(2, 2))
        assert await anext(acks) == (4, 4, 0, [])
        sent.put_nowait(None)
        with pytest.raises(StopAsyncIteration):
            await anext(acks)


async def test_not_acknowledged_before_it_is_durable() -> None:
    durable = asyncio.Event()
    retrieval = FakeRetrieval(upserts=lambda: _then(durable.wait(), ()))
    first = asyncio.create_task(collect(importer(retrieval).run(stream(rows(2)))))
    await asyncio.sleep(0.01)
    assert not first.done()
    durable.set()
    assert len(await first) == 1


async def _then(waited: Any, result: Any) -> Any:
    await waited
    return result


async def test_encodes_ahead_while_it_stores_but_no_further_than_the_window() -> None:
    read = 0

    async def batches() -> AsyncIterator[Sequence[ItemRow]]:
        nonlocal read
        for at in range(50):
            read += 1
            yield rows(4, 4 * at)

    storing = asyncio.Event()
    encoder = FakeItemEncoder()
    retrieval = FakeRetrieval(upserts=lambda: _then(storing.wait(), ()))
    running = asyncio.create_task(collect(importer(retrieval, encoder).run(batches())))
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(encoder.calls) == 3
    assert read <= 4
    storing.set()
    assert len(await running) == 50
    assert encoder.most_running <= 3


async def test_stores_in_order_when_encodings_finish_out_of_order() -> None:
    order: list[object] = []
    second_done = asyncio.Event()

    async def before(items: Sequence[object]) -> None:
        if items[0] == "item 0000":
            await second_done.wait()
        else:
            second_done.set()
        order.append(items[0])

    retrieval = FakeRetrieval()
    await collect(importer(retrieval, FakeItemEncoder(before)).run(stream(rows(4), rows(4, 4))))
    assert order == ["item 0004", "item 0000"]
    assert [items[0] for items in retrieval.written] == ["item 0000", "item 0004"]


async def test_waits_for_a_busy_encoder() -> None:
    clock = FakeClock(0)
    script = Scripted(OverloadedError("full", retry_after_s=5.0), None)
    acks = await collect(
        importer(FakeRetrieval(), FakeItemEncoder(lambda _: script.next()), clock).run(stream(rows(2)))
    )
    assert acks[-1].accepted == 2
    assert clock.now == pytest.approx(5.0)


async def test_waits_for_an_index_that_restarts() -> None:
    retrieval = FakeRetrieval()
    retrieval.upsert_script = Scripted(UnavailableError("vector_retrieval"), UnavailableError("vector_retrieval"), ())
    acks = await collect(importer(retrieval).run(stream(rows(2))))
    assert acks[-1].accepted == 2
    assert len(retrieval.written) == 1


async def test_gives_up_after_its_patience_with_what_came_before_acknowledged() -> None:
    retrieval = FakeRetrieval()
    retrieval.upsert_script = Scripted((), UnavailableError("vector_retrieval"))
    acks, error = await collect_until_it_fails(importer(retrieval).run(stream(rows(4), rows(4, 4), rows(4, 8))))
    assert isinstance(error, UnavailableError)
    assert [a.rows for a in acks] == [4]


async def test_a_bug_ends_the_import_at_once() -> None:
    async def fail(items: Sequence[object]) -> None:
        raise InternalError("bug")

    with pytest.raises(InternalError):
        await collect(importer(FakeRetrieval(), FakeItemEncoder(fail)).run(stream(*[rows(4)] * 10)))


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_out_of_bounds_ends_the_stream_after_the_acks_before_it(count: int) -> None:
    acks, error = await collect_until_it_fails(importer(FakeRetrieval()).run(stream(rows(4), rows(4, 4), rows(count))))
    assert isinstance(error, InvalidArgumentError)
    assert [v.field for v in error.violations] == ["items"]
    assert [a.rows for a in acks] == [4, 8]


@pytest.mark.parametrize("where", ["reading", "encoding", "storing"])
async def test_cancelling_stops_everything(where: str) -> None:
    async def forever() -> AsyncIterator[Sequence[ItemRow]]:
        yield rows(4)
        if where == "reading":
            await hang()
        for at in range(1, 100):
            yield rows(4, 4 * at)

    encoder = FakeItemEncoder((lambda _: hang()) if where == "encoding" else None)
    retrieval = FakeRetrieval(upserts=hang if where == "storing" else ())
    before = asyncio.all_tasks()
    running = asyncio.create_task(collect(importer(retrieval, encoder).run(forever())))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == before
    assert encoder.running == 0


async def test_a_caller_that_stops_listening_stops_everything() -> None:
    before = asyncio.all_tasks()
    async with aclosing(importer(FakeRetrieval()).run(stream(*[rows(4)] * 10))) as acks:
        await anext(acks)
    assert asyncio.all_tasks() == before


@given(st.lists(st.integers(1, 1500), max_size=40), st.integers(1, 8), st.integers(500, 3000))
def test_chunks_keep_the_order_and_the_bounds(sizes: list[int], most_items: int, most_bytes: int) -> None:
    drafts, _ = draft([row(str(at), size=size) for at, size in enumerate(sizes)])
    cut = list(chunks(drafts, most_items, most_bytes))
    assert [d for chunk in cut for d in chunk] == drafts
    for chunk in cut:
        assert 1 <= len(chunk) <= most_items
        assert len(chunk) == 1 or sum(d.row.size for d in chunk) <= most_bytes
