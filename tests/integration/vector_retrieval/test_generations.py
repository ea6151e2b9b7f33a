"""From one model to the next: what is built, compared, promoted, rolled back and dropped, alike on every home."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from pymilvus import MilvusClient, MilvusException

from services.vector_retrieval import lifecycle
from services.vector_retrieval.servicer import VectorRetrievalServicer
from services.vector_retrieval.settings import VectorRetrievalSettings
from services.vector_retrieval.store import Store
from shared.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    VersionMismatchError,
)
from shared.rpc import embeddings

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

OLD, NEW = "model-1", "model-2"
OLD_SIZE, NEW_SIZE = 8, 6
_numbers = itertools.count()


def vectors(ids: list[str], size: int) -> np.ndarray:
    rows = [np.random.default_rng(abs(hash(i)) % 2**32).normal(size=size) for i in ids]
    return np.array(rows, dtype=np.float32).reshape(-1, size)


class Index:
    """One index of its own, asked in the words of the wire."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rpc = VectorRetrievalServicer(store)

    async def write(
        self, *ids: str, title: str = "title", brand: str = "", version: str = OLD, at: datetime | None = None
    ) -> pb.UpsertItemsResponse:
        items = [item_pb2.Item(id=i, title=title, brand=brand) for i in ids]
        for item in items:
            item.updated_at.FromDatetime(at or datetime.now(UTC))
        rows = vectors(list(ids), OLD_SIZE if version == OLD else NEW_SIZE)
        return await self.rpc.UpsertItems(
            pb.UpsertItemsRequest(items=items, embeddings=embeddings.pack(rows, version)), None
        )

    async def delete(self, *ids: str) -> int:
        return (await self.rpc.DeleteItems(pb.DeleteItemsRequest(ids=ids), None)).deleted

    async def titles(self, *ids: str) -> dict[str, str]:
        found = await self.rpc.GetItems(pb.GetItemsRequest(ids=ids), None)
        return {item.id: item.title for item in found.items}

    async def found(self, version: str) -> tuple[dict[str, str], pb.SearchResponse]:
        size = OLD_SIZE if version == OLD else NEW_SIZE
        answer = await self.rpc.Search(
            pb.SearchRequest(
                embeddings=embeddings.pack(np.ones((1, size), dtype=np.float32), version),
                limit=100,
                consistency=pb.CONSISTENCY_STRONG,
            ),
            None,
        )
        return {hit.item.id: hit.item.title for hit in answer.candidates[0].hits}, answer

    async def nearest(self, limit: int, brand: str = "", *, exact: bool = False) -> list[str]:
        """To one vector of the new model."""
        condition = filter_pb2.Filter(text=filter_pb2.TextCondition(field="brand", values=[brand]))
        answer = await self.rpc.Search(
            pb.SearchRequest(
                embeddings=embeddings.pack(np.ones((1, NEW_SIZE), dtype=np.float32), NEW),
                filter=condition if brand else None,
                limit=limit,
                exact=exact,
                consistency=pb.CONSISTENCY_STRONG,
            ),
            None,
        )
        return [hit.item.id for hit in answer.candidates[0].hits]

    async def create(self, **fields: object) -> str:
        made = await self.rpc.CreateGeneration(
            pb.CreateGenerationRequest(
                model_version=NEW,
                dimensions=NEW_SIZE,
                **(fields or {"hnsw_m": 8}),  # type: ignore[arg-type]
            ),
            None,
        )
        assert made.generation.state == pb.GENERATION_STATE_BUILDING
        assert made.generation.index_type == fields.get("index_type", pb.INDEX_TYPE_HNSW)
        return made.generation.name

    async def pending(self, name: str, source: str = "", size: int = 3) -> list[item_pb2.Item]:
        items: list[item_pb2.Item] = []
        token = ""
        while True:
            page = await self.rpc.ListItems(
                pb.ListItemsRequest(generation=source, missing_from=name, page_size=size, page_token=token), None
            )
            items.extend(page.items)
            token = page.next_page_token
            if not token:
                return items

    async def load(self, name: str, items: list[item_pb2.Item], version: str = NEW) -> int:
        size = OLD_SIZE if version == OLD else NEW_SIZE
        rows = vectors([item.id for item in items], size)
        response = await self.rpc.UpsertItems(
            pb.UpsertItemsRequest(items=items, embeddings=embeddings.pack(rows, version), generation=name), None
        )
        return response.outdated

    async def catch_up(self, name: str) -> int:
        items = await self.pending(name)
        if items:
            await self.load(name, items)
        return len(items)

    async def verify(self, name: str) -> pb.Verification:
        return (await self.rpc.VerifyGeneration(pb.VerifyGenerationRequest(generation=name), None)).verification

    async def promote(self, name: str, **fields: object) -> pb.PromoteGenerationResponse:
        return await self.rpc.PromoteGeneration(
            pb.PromoteGenerationRequest(generation=name, **fields),  # type: ignore[arg-type]
            None,
        )

    async def states(self) -> dict[str, tuple[int, int]]:
        listed = await self.rpc.ListGenerations(pb.ListGenerationsRequest(), None)
        return {g.model_version: (g.state, g.items) for g in listed.generations}


@pytest_asyncio.fixture(loop_scope="module")
async def index(home: str, settings: VectorRetrievalSettings, tmp_path: Path) -> AsyncIterator[Index]:
    uri = settings.uri if home == "server" else str(tmp_path / "milvus.db")
    own = settings.model_copy(
        update={"uri": uri, "index": f"{settings.index}_{next(_numbers)}", "cut_over_hold_s": 5.0}
    )
    store = await Store.open(own)
    yield Index(store)
    if home == "server":
        # Tests share the server: what one leaves loaded takes from the time of all that follow.
        await store._connection.write("drop", lambda client: remove(client, own.index))
    await store.close()


def remove(client: MilvusClient, index: str) -> None:
    for alias in (index, f"{index}__building", f"{index}__previous"):
        with suppress(MilvusException):
            client.drop_alias(alias)
    for name in client.list_collections():
        if name.startswith(f"{index}_"):
            client.drop_collection(name)


async def test_a_generation_is_built_promoted_and_rolled_back(index: Index) -> None:
    await index.write(*"abcdefg")
    new = await index.create()
    with pytest.raises(FailedPreconditionError, match="is being built"):
        await index.create()
    assert [item.id for item in await index.pending(new)] == list("abcdefg")
    assert await index.states() == {
        OLD: (pb.GENERATION_STATE_LIVE, 7),
        NEW: (pb.GENERATION_STATE_BUILDING, 0),
    }
    with pytest.raises(VersionMismatchError):
        await index.found(NEW)
    with pytest.raises(FailedPreconditionError, match="lacks 7 items") as refused:
        await index.promote(new)
    assert refused.value.reason == "GENERATION_BEHIND"
    await index.store._generations.release()

    assert await index.catch_up(new) == 7
    assert await index.catch_up(new) == 0
    seen = await index.verify(new)
    assert (seen.items, seen.live_items, seen.missing, seen.extra, list(seen.problems)) == (7, 7, 0, 0, [])
    assert (seen.recall, seen.sampled) == (1.0, 7)
    promoted = await index.promote(new)
    assert (promoted.generation.state, promoted.verification.items) == (pb.GENERATION_STATE_LIVE, 7)
    assert await index.states() == {
        OLD: (pb.GENERATION_STATE_PREVIOUS, 7),
        NEW: (pb.GENERATION_STATE_LIVE, 7),
    }
    assert (await index.promote(new)).generation.name == new

    names, answer = await index.found(NEW)
    assert (sorted(names), answer.model_version, answer.generation) == (list("abcdefg"), NEW, new)
    # Callers whose model has not changed yet are answered by what their vectors can be compared with.
    names, answer = await index.found(OLD)
    assert (sorted(names), answer.model_version) == (list("abcdefg"), OLD)
    assert list(answer.degraded) == ["PREVIOUS_GENERATION"]
    with pytest.raises(VersionMismatchError):
        await index.write("h")

    await index.rpc.RollbackGeneration(pb.RollbackGenerationRequest(), None)
    assert (await index.found(OLD))[1].degraded == []
    assert (await index.write("h")).accepted == 1


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"index_type": pb.INDEX_TYPE_HNSW, "hnsw_m": 16, "hnsw_ef_construction": 100}, pb.INDEX_TYPE_HNSW),
        ({"index_type": pb.INDEX_TYPE_FLAT}, pb.INDEX_TYPE_FLAT),
        ({"index_type": pb.INDEX_TYPE_IVF_FLAT, "ivf_nlist": 1000}, pb.INDEX_TYPE_IVF_FLAT),
    ],
    ids=["hnsw", "flat", "ivf_flat"],
)
async def test_a_generation_of_each_index_type_is_built_promoted_and_searched(
    index: Index, fields: dict[str, object], told: pb.IndexType
) -> None:
    # Milvus indexes no segment of fewer than 1,024 rows.
    for brand in ("Acme", "Zeta"):
        await index.write(*(f"{brand}-{i}" for i in range(700)), brand=brand)
    new = await index.create(**fields)
    listed = await index.rpc.ListGenerations(pb.ListGenerationsRequest(), None)
    assert {g.model_version: g.index_type for g in listed.generations} == {OLD: pb.INDEX_TYPE_HNSW, NEW: told}
    items = await index.pending(new, size=1000)
    await index.load(new, items[:700])
    await index.load(new, items[700:])
    await index.store.flush()
    assert await indexed(index) == pb.IndexType.Name(told).removeprefix("INDEX_TYPE_")

    seen = await index.verify(new)
    assert (seen.items, seen.missing, list(seen.problems)) == (1400, 0, [])
    await index.promote(new)
    for brand in ("", "Acme"):
        found, nearest = await index.nearest(50, brand), await index.nearest(50, brand, exact=True)
        assert len(set(found) & set(nearest)) >= 45
        if told == pb.INDEX_TYPE_FLAT:
            assert found == nearest
    assert (len(await index.nearest(1000)), len(await index.nearest(1000, "Acme"))) == (1000, 700)


async def indexed(index: Index) -> str:
    """Waits until the generation that is being built is indexed, where that takes a while; how, as the store has it."""
    building = index.store.roles.building
    assert building is not None
    async with asyncio.timeout(60):
        while True:
            told = await index.store._connection.read("describe_index", building.collection, "vector")
            if not index.store._settings.is_server or int(told["indexed_rows"]) == int(told["total_rows"]) > 0:
                return str(told["index_type"])
            await asyncio.sleep(0.5)


async def test_writes_meanwhile_are_not_missed(index: Index) -> None:
    await index.write(*"abcd")
    new = await index.create()
    listed = await index.pending(new)
    at = listed[0].updated_at.ToDatetime(tzinfo=UTC)
    # Between being listed and being loaded: one changed, one changed without a later time, one deleted, one added.
    await index.write("a", title="changed", at=at)
    await index.write("b", title="later")
    assert await index.delete("c") == 1
    await index.write("e")
    assert await index.load(new, listed) == 3
    assert [item.id for item in await index.pending(new)] == ["a", "b", "e"]
    assert await index.catch_up(new) == 3

    # After being loaded.
    await index.write("d", title="changed late")
    await index.delete("e")
    assert [item.id for item in await index.pending(new)] == ["d"]
    seen = await index.verify(new)
    assert (seen.missing, seen.extra) == (1, 0)
    await index.catch_up(new)
    await index.promote(new)
    assert (await index.found(NEW))[0] == {"a": "changed", "b": "later", "d": "changed late"}


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


async def test_the_previous_generation_follows(index: Index) -> None:
    await index.write(*"abc")
    new = await index.create()
    await index.catch_up(new)
    await index.promote(new)
    await index.write("a", title="changed", version=NEW)
    await index.write("d", version=NEW)
    await index.delete("b")
    assert (await index.found(OLD))[0] == {"a": "changed", "c": "title"}
    with pytest.raises(FailedPreconditionError, match="lacks 1 items"):
        await index.rpc.RollbackGeneration(pb.RollbackGenerationRequest(), None)
    await index.store._generations.release()
    (old,) = [name for name, (state, _) in (await named(index)).items() if state == pb.GENERATION_STATE_PREVIOUS]
    lacking = await index.pending(old)
    assert [item.id for item in lacking] == ["d"]
    await index.load(old, lacking, version=OLD)
    await index.rpc.RollbackGeneration(pb.RollbackGenerationRequest(), None)
    assert sorted((await index.found(OLD))[0]) == ["a", "c", "d"]


async def named(index: Index) -> dict[str, tuple[int, int]]:
    listed = await index.rpc.ListGenerations(pb.ListGenerationsRequest(), None)
    return {g.name: (g.state, g.items) for g in listed.generations}


async def test_a_forced_rollback_and_what_can_be_dropped(index: Index) -> None:
    await index.write("a")
    (old,) = await named(index)
    with pytest.raises(FailedPreconditionError, match="is live"):
        await index.rpc.DropGeneration(pb.DropGenerationRequest(generation=old), None)
    with pytest.raises(FailedPreconditionError, match="no previous generation"):
        await index.rpc.RollbackGeneration(pb.RollbackGenerationRequest(), None)
    new = await index.create()
    assert (await index.promote(new, force=True)).generation.name == new
    assert (await index.found(NEW))[0] == {}
    await index.rpc.RollbackGeneration(pb.RollbackGenerationRequest(force=True), None)
    assert (await index.found(OLD))[0] == {"a": "title"}
    await index.rpc.DropGeneration(pb.DropGenerationRequest(generation=new), None)
    assert list(await named(index)) == [old]
    with pytest.raises(NotFoundError):
        await index.rpc.DropGeneration(pb.DropGenerationRequest(generation=new), None)
    with pytest.raises(NotFoundError):
        await index.verify(new)
    assert (await index.write("b")).accepted == 1


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


async def test_requests_that_make_no_sense(index: Index) -> None:
    with pytest.raises(FailedPreconditionError, match="nothing is live"):
        await index.create()
    await index.write("a")
    with pytest.raises(InvalidArgumentError) as refused:
        await index.rpc.CreateGeneration(pb.CreateGenerationRequest(dimensions=1, hnsw_m=65), None)
    assert [v.field for v in refused.value.violations] == ["model_version", "dimensions", "hnsw_m"]
    with pytest.raises(NotFoundError):
        await index.pending("absent")
    with pytest.raises(NotFoundError):
        await index.load("absent", [item_pb2.Item(id="a", title="t")])
    new = await index.create()
    with pytest.raises(VersionMismatchError):
        await index.load(new, [item_pb2.Item(id="a", title="t")], version=OLD)
