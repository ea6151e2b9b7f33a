"""Several replicas of the service over one Milvus server."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from pymilvus import MilvusClient

from services.vector_retrieval import writes
from services.vector_retrieval.lifecycle import Options
from services.vector_retrieval.schema import Row
from services.vector_retrieval.search import Consistency, Query
from services.vector_retrieval.settings import VectorRetrievalSettings
from services.vector_retrieval.store import Store
from shared.errors import FailedPreconditionError, VersionMismatchError
from shared.items import Item
from tests.integration.vector_retrieval.servers import MilvusServer

pytestmark = pytest.mark.milvus_server

WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)
VECTOR = np.ones(4, dtype=np.float32)


def row(item_id: str) -> Row:
    return Row(Item(id=item_id, title="t", updated_at=WRITTEN), VECTOR, item_id.encode())


async def found(store: Store) -> set[str]:
    query = Query(vectors=VECTOR[None], model_version="m", limit=10, consistency=Consistency.STRONG)
    return {candidate.id for candidate in (await store.search(query)).candidates[0]}


@pytest_asyncio.fixture
async def replicas(milvus_server: MilvusServer) -> AsyncIterator[list[Store]]:
    settings = VectorRetrievalSettings(
        uri=milvus_server.uri, index=f"replicas_{uuid.uuid4().hex[:8]}", search_timeout_s=20
    )
    stores = [await Store.open(settings) for _ in range(2)]
    yield stores
    for store in stores:
        await store.close()


async def test_first_writes_at_the_same_time_make_one_index(replicas: list[Store], milvus_server: MilvusServer) -> None:
    one, other = replicas
    assert await asyncio.gather(one.upsert([row("a")], "m"), other.upsert([row("b")], "m")) == [{}, {}]
    assert await found(one) == await found(other) == {"a", "b"}
    statuses = [await store.status() for store in replicas]
    assert statuses[0] == statuses[1]
    generation = statuses[0].generation
    assert generation is not None
    with pytest.raises(VersionMismatchError):
        await other.upsert([row("c")], "another model")

    client = MilvusClient(milvus_server.uri)
    index = generation.collection.removesuffix(f"_{generation.name}")
    assert [name for name in client.list_collections() if name.startswith(index)] == [generation.collection]

    # Dropped behind the replicas' backs: the next call finds out, and the next write starts anew.
    client.drop_alias(index)
    client.drop_collection(generation.collection)
    assert await found(one) == set()
    assert await other.upsert([row("d")], "another model") == {}
    client.close()


async def test_a_hold_of_one_replica_holds_the_writes_of_all(replicas: list[Store]) -> None:
    one, other = replicas
    await one.upsert([row("a")], "m")
    await one._generations.hold()
    writing = asyncio.create_task(other.upsert([row("b")], "m"))
    await asyncio.sleep(0.5)
    assert not writing.done()
    await one._generations.release()
    assert await asyncio.wait_for(writing, 3) == {}
    assert await found(one) == {"a", "b"}


async def test_what_one_replica_writes_keeps_another_from_promoting_without_it(replicas: list[Store]) -> None:
    one, other = replicas
    await one.upsert([row("a")], "m")
    can = await one.capabilities()
    made = await one.create_generation("m2", 4, one.default_index)

    async def load() -> None:
        lacking = (await one.list_items("", made.name, 100, "")).payloads
        await one.load([row(payload.decode()) for payload in lacking], "m2", made.name, lambda *_: True)

    await load()
    assert (await one.lifecycle.verify(made.name, Options(), can)).missing == 0
    await other.upsert([row("a"), row("b")], "m")
    with pytest.raises(FailedPreconditionError, match="lacks 2 items"):
        await one.lifecycle.promote(made.name, Options(), can, force=False)
    await load()
    await one.lifecycle.promote(made.name, Options(), can, force=False)
    # It has not been told, and asks.
    with pytest.raises(VersionMismatchError):
        await other.upsert([row("c")], "m")
    assert await other.upsert([row("c")], "m2") == {}


async def test_what_one_replica_deletes_is_not_brought_back_by_what_another_loads(
    replicas: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = replicas
    await one.upsert([row("a"), row("b")], "m")
    made = await one.create_generation("m2", 4, one.default_index)
    loop, read = asyncio.get_running_loop(), writes._newer

    def read_and_delete(*arguments: Any) -> list[Row]:
        found = read(*arguments)
        assert asyncio.run_coroutine_threadsafe(other.delete(["a"]), loop).result(timeout=20) == 1
        return found

    monkeypatch.setattr(writes, "_newer", read_and_delete)
    assert await one.load([row("a"), row("b")], "m2", made.name, lambda *_: True) == ({}, 1)
    monkeypatch.undo()
    counts = {generation.name: items for generation, items in (await one.list_generations())[0]}
    assert counts[made.name] == 1
    assert await found(one) == {"b"}


async def test_a_delete_that_was_not_finished_keeps_nobody_from_changing_the_model(replicas: list[Store]) -> None:
    one, _ = replicas
    await one.upsert([row("a"), row("b")], "m")
    await one._connection.write("mark", lambda client: one._writer._tombstones.mark(client, ["a"]))
    made = await one.create_generation("m2", 4, one.default_index)
    assert await one.load([row("a"), row("b")], "m2", made.name, lambda *_: True) == ({}, 1)
    assert await found(one) == {"b"}
    await one.lifecycle.promote(made.name, Options(), await one.capabilities(), force=False)


async def test_an_alias_of_somebody_else_is_left_alone(replicas: list[Store], milvus_server: MilvusServer) -> None:
    client = MilvusClient(milvus_server.uri)
    index = replicas[0]._settings.index
    client.create_collection(f"{index}_theirs", dimension=4)
    client.create_alias(f"{index}_theirs", index)
    with pytest.raises(FailedPreconditionError, match="Aisle did not make"):
        await replicas[0].upsert([row("a")], "m")
    reason = await replicas[0].check()
    assert reason is not None
    assert "Aisle did not make" in reason
    client.close()
