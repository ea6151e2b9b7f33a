"""From one model to the next: what is built, compared, promoted, rolled back and dropped, alike on every home."""

import asyncio
from datetime import UTC

import pytest
from aisle.catalog.v1 import item_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from shared.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError, VersionMismatchError
from tests.integration.vector_retrieval.index import NEW, OLD, Index

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


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


async def test_odd_ids_are_written_and_deleted_in_every_generation(index: Index) -> None:
    odd = ["it's", "x'] or id != '' or id in ['y", "back\\slash"]
    await index.write(*odd, "a")
    new = await index.create()
    await index.catch_up(new)
    assert (await index.write(*odd)).accepted == 3
    assert [item.id for item in await index.pending(new)] == sorted(odd)
    await index.catch_up(new)
    await index.promote(new)
    for each in odd:
        assert await index.delete(each) == 1
    assert await index.states() == {
        OLD: (pb.GENERATION_STATE_PREVIOUS, 1),
        NEW: (pb.GENERATION_STATE_LIVE, 1),
    }


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
