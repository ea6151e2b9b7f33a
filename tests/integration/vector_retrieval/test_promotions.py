"""Promotions of shops that write meanwhile, are large, or were cut off: nothing is missed, nothing is in the way."""

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from pymilvus import MilvusClient, MilvusException

from services.vector_retrieval import lifecycle
from services.vector_retrieval.generations import Generation
from shared.errors import FailedPreconditionError, UnavailableError, VersionMismatchError
from tests.integration.vector_retrieval.index import NEW, OLD, Index

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


async def test_roles_that_were_read_before_a_swap_do_not_outlast_it(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next write goes to the generation that was live, is acknowledged, and is found by nobody."""
    await index.write("a")
    new = await index.create()
    await index.catch_up(new)
    generations = index.store._generations
    behind, read, go_on = generations._behind, asyncio.Semaphore(0), asyncio.Event()

    async def slowly(alias: str) -> Any:
        found = await behind(alias)
        read.release()
        await go_on.wait()
        return found

    monkeypatch.setattr(generations, "_behind", slowly)
    reading = asyncio.create_task(generations.refresh())
    for _ in ("live", "building", "previous"):
        await read.acquire()
    monkeypatch.setattr(generations, "_behind", behind)
    await index.promote(new)
    go_on.set()
    live = await reading
    assert live is not None
    assert (live.name, generations.roles.live) == (new, live)


async def test_a_write_that_lands_after_a_look_has_begun_is_looked_at_again(index: Index) -> None:
    await index.write("a")
    new = await index.create()
    building, writer = index.store.roles.building, index.store._writer
    assert building is not None
    assert building.name == new
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work(client: MilvusClient) -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(10)

    writing = asyncio.create_task(writer._write("upsert", ["a"], work))
    await begun.wait()
    writer.watch(building)
    go_on.set()
    await writing
    assert writer.touched(building) == {"a"}


async def test_what_is_too_much_does_not_go_live(index: Index) -> None:
    """As after a delete through a replica that had not heard of the new generation yet."""
    await index.write(*"abc")
    new = await index.create()
    await index.catch_up(new)
    live = index.store.roles.live
    assert live is not None
    await index.store._writer.remove(["a"], live)
    assert (await index.verify(new)).extra == 1
    await index.promote(new)
    assert sorted((await index.found(NEW))[0]) == ["b", "c"]


async def test_the_way_back_keeps_what_a_forced_promotion_has_left_behind(index: Index) -> None:
    await index.write(*"abc")
    new = await index.create()
    await index.load(new, [i for i in await index.pending(new) if i.id != "a"])
    await index.promote(new, force=True)
    await index.delete("b")
    assert sorted((await index.found(NEW))[0]) == ["c"]
    await index.rpc.RollbackGeneration(pb.RollbackGenerationRequest(), None)
    assert sorted((await index.found(OLD))[0]) == ["a", "c"]


async def test_an_index_that_takes_longer_to_look_at_than_a_look_is_good_for_goes_live(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    await index.write(*"abc")
    new = await index.create()
    await index.catch_up(new)
    steps = index.store.lifecycle
    monkeypatch.setattr(lifecycle, "_WATCH_LASTS_S", 1.0)

    def slow(work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def slowed(*arguments: object) -> Any:
            await asyncio.sleep(1.1)
            return await work(*arguments)

        return slowed

    monkeypatch.setattr(steps, "settle", slow(steps.settle))
    monkeypatch.setattr(steps, "_probe", slow(steps._probe))
    await index.promote(new)
    assert sorted((await index.found(NEW))[0]) == ["a", "b", "c"]


async def test_a_promotion_that_was_cut_off_does_not_stop_the_next(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    await index.write(*"abc")
    new = await index.create()
    await index.catch_up(new)

    def broken(client: MilvusClient, alias: str) -> None:
        raise MilvusException(message="killed here")

    with monkeypatch.context() as patch:
        patch.setattr(MilvusClient, "drop_alias", broken)
        with pytest.raises(UnavailableError):
            await index.promote(new)
    assert (await index.states())[NEW] == (pb.GENERATION_STATE_LIVE, 3)
    assert await index.create() != new
    assert (await index.found(NEW))[1].generation == new


async def test_a_shop_that_never_stops_writing_can_change_its_model(index: Index) -> None:
    """Each acknowledged write is in the new generation, though some came between the last look and the swap."""
    await index.write(*(f"item-{i}" for i in range(50)))
    new = await index.create()
    acknowledged: dict[str, str] = {}

    async def write() -> None:
        for i in itertools.count():
            name, title = f"item-{i % 70}", f"title {i}"
            try:
                await index.write(name, title=title)
            except VersionMismatchError:
                return
            acknowledged[name] = title

    writing = asyncio.create_task(write())

    async def promoted() -> bool:
        await index.catch_up(new)
        try:
            await index.promote(new)
        except FailedPreconditionError as refused:
            if refused.reason == "GENERATION_BEHIND":
                return False
            raise
        return True

    for _ in range(10):
        if await promoted():
            break
    await asyncio.wait_for(writing, 20)
    assert acknowledged
    assert acknowledged.items() <= (await index.found(NEW))[0].items()


async def test_what_finds_badly_is_refused_and_looked_at_again(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    await index.write("a")
    new = await index.create()
    await index.catch_up(new)
    probed = []

    async def probe(target: Generation, *_: object) -> lifecycle._Probe:
        probed.append(target.name)
        return lifecycle._Probe(0.5 if len(probed) == 1 else 1.0, 1, time.monotonic())

    monkeypatch.setattr(index.store.lifecycle, "_probe", probe)
    with pytest.raises(FailedPreconditionError, match=r"recall is 0\.500, below 0\.95") as refused:
        await index.promote(new)
    assert refused.value.reason == "GENERATION_UNFIT"
    assert list((await index.verify(new)).problems) == []
    assert probed == [new] * 2
    # What was found well is believed.
    assert (await index.promote(new)).generation.name == new
    assert probed == [new] * 2
