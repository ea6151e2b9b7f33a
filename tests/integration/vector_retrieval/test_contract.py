"""What the service promises, alike on every home. Asked through the servicer, so in the words of the wire."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.vector_retrieval.schema import Row
from services.vector_retrieval.servicer import VectorRetrievalServicer
from services.vector_retrieval.settings import VectorRetrievalSettings
from services.vector_retrieval.store import Store
from shared.errors import FailedPreconditionError, InvalidArgumentError, VersionMismatchError
from shared.items import Item
from shared.rpc import embeddings
from tests.integration.vector_retrieval.shop import DIMENSIONS, MODEL, Shop, direction, query

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_empty_shop_answers_with_nothing(shop: Shop, empty_store: Store) -> None:
    shop.servicer = VectorRetrievalServicer(empty_store)
    found = await shop.search(embeddings=query(direction(0), direction(1)), texts=["shoe", "hat"])
    assert [len(c.hits) for c in found.candidates] == [0, 0]
    assert (found.generation, found.model_version, list(found.degraded)) == ("", "", [])
    assert not (await shop.get("a", vectors=True)).items
    assert (await shop.servicer.DeleteItems(pb.DeleteItemsRequest(ids=["a"]), None)).deleted == 0
    status = await shop.servicer.GetStatus(pb.GetStatusRequest(), None)
    assert (status.generation, status.items) == ("", 0)
    assert await empty_store.check() is None


async def test_items_come_back_as_they_were(shop: Shop) -> None:
    item = shop.item(
        "lamp",
        "Table lamp “Ζεύς” 台灯",
        description="Line\nbreak, \x00 and 😀",
        brand='Quo"te',
        category_path=["Home", "Light > Lamps"],
        price=item_pb2.Money(currency_code="EUR", units=19, nanos=990_000_000),
        in_stock=False,
        rating=4.5,
        rating_count=0,
        attributes={"color": item_pb2.Attribute(text=["red"], numbers=[2.5])},
    )
    item.updated_at.FromDatetime(datetime(2024, 5, 1, tzinfo=UTC))
    vector = np.linspace(-1, 1, DIMENSIONS, dtype=np.float32)
    response = await shop.upsert(item, vectors=vector[None])
    assert (response.accepted, list(response.errors)) == (1, [])
    found = await shop.get("lamp", "absent", "lamp", vectors=True)
    assert list(found.items) == [item]
    np.testing.assert_allclose(embeddings.unpack(found.embeddings), vector[None])
    assert found.embeddings.model_version == MODEL


async def test_items_come_in_the_order_of_the_ids(shop: Shop) -> None:
    await shop.upsert(*(shop.item(n) for n in "abc"))
    assert [i.title for i in (await shop.get("c", "a", "b")).items] == ["c", "a", "b"]


async def test_an_item_that_does_not_say_when_is_updated_now(shop: Shop) -> None:
    before = datetime.now(UTC)
    await shop.upsert(shop.item("a"))
    at = (await shop.get("a")).items[0].updated_at.ToDatetime(tzinfo=UTC)
    assert before <= at <= datetime.now(UTC)


async def test_of_two_writes_the_later_update_wins(shop: Shop) -> None:
    def version(title: str, minute: int) -> item_pb2.Item:
        item = shop.item("a", title)
        item.updated_at.FromDatetime(datetime(2024, 5, 1, 12, minute, tzinfo=UTC))
        return item

    await shop.upsert(version("newer", 5))
    response = await shop.upsert(version("older", 4))
    assert response.accepted == 1
    assert (await shop.get("a")).items[0].title == "newer"
    await shop.upsert(version("same time, written later", 5))
    assert (await shop.get("a")).items[0].title == "same time, written later"
    await shop.upsert(version("first in the batch, newest", 9), version("second", 8))
    assert (await shop.get("a")).items[0].title == "first in the batch, newest"


async def test_writing_twice_leaves_one(shop: Shop) -> None:
    for _ in range(2):
        await shop.upsert(shop.item("a"), shop.item("b"))
    found = await shop.search(embeddings=query(direction(0)))
    assert sorted(shop.names(found)) == ["a", "b"]


async def test_concurrent_writes_of_one_item_keep_the_latest(shop: Shop) -> None:
    start = datetime(2024, 5, 1, tzinfo=UTC)

    async def write(minute: int) -> None:
        item = shop.item("a", f"version {minute}")
        item.updated_at.FromDatetime(start + timedelta(minutes=minute))
        await shop.upsert(item)

    await shop.upsert(shop.item("other"))
    await asyncio.gather(*(write(minute) for minute in (3, 7, 1, 5)))
    assert (await shop.get("a")).items[0].title == "version 7"


async def test_bad_rows_fail_alone(shop: Shop) -> None:
    vectors = np.stack([direction(i) for i in range(6)])
    vectors[3] = 0
    response = await shop.upsert(
        shop.item("good"),
        item_pb2.Item(id=shop.id("untitled"), title=" "),
        shop.item("money", price=item_pb2.Money(currency_code="EUR", units=1, nanos=1)),
        shop.item("zero"),
        shop.item("numbers", attributes={"n": item_pb2.Attribute(numbers=range(17))}),
        shop.item("also good"),
        vectors=vectors,
    )
    assert response.accepted == 2
    assert [(e.row, e.item_id, e.field) for e in response.errors] == [
        (1, shop.id("untitled"), "title"),
        (2, shop.id("money"), "price.nanos"),
        (3, shop.id("zero"), "vector"),
        (4, shop.id("numbers"), "attributes['n'].numbers"),
    ]
    assert [i.title for i in (await shop.get("good", "zero", "also good")).items] == ["good", "also good"]


async def test_requests_that_are_wrong_as_a_whole(shop: Shop) -> None:
    await shop.upsert(shop.item("a"))
    with pytest.raises(InvalidArgumentError, match="items"):
        await shop.upsert(vectors=np.zeros((0, DIMENSIONS)))
    with pytest.raises(InvalidArgumentError, match=r"embeddings.data: has 1 rows for 2 items"):
        await shop.upsert(shop.item("b"), shop.item("c"), vectors=direction(0)[None])
    with pytest.raises(InvalidArgumentError, match="NaN"):
        await shop.upsert(shop.item("b"), vectors=np.full((1, DIMENSIONS), np.nan))
    with pytest.raises(InvalidArgumentError, match=r"embeddings.dimensions: must be 16"):
        await shop.upsert(shop.item("b"), vectors=np.ones((1, 3)))
    with pytest.raises(InvalidArgumentError, match=r"embeddings.model_version"):
        await shop.upsert(shop.item("b"), version="")
    with pytest.raises(VersionMismatchError, match=r"'model-2'.*'model-1'"):
        await shop.upsert(shop.item("b"), version="model-2")
    assert not (await shop.get("b")).items


async def test_deletes_are_final(shop: Shop) -> None:
    await shop.upsert(shop.item("a"), shop.item("b"))
    ids = [shop.id("a"), shop.id("absent")]
    assert (await shop.servicer.DeleteItems(pb.DeleteItemsRequest(ids=ids), None)).deleted == 1
    assert (await shop.servicer.DeleteItems(pb.DeleteItemsRequest(ids=ids), None)).deleted == 0
    assert [i.title for i in (await shop.get("a", "b")).items] == ["b"]
    assert shop.names(await shop.search(embeddings=query(direction(0)))) == ["b"]


async def test_an_older_change_does_not_bring_a_deleted_item_back(shop: Shop) -> None:
    def version(name: str, at: datetime) -> item_pb2.Item:
        item = shop.item(name, f"of {at:%X}")
        item.updated_at.FromDatetime(at)
        return item

    await shop.upsert(shop.item("a"), shop.item("kept"))
    before = datetime.now(UTC)
    # One of the ids is not there yet: its first change is on its way still.
    ids = [shop.id("a"), shop.id("late")]
    assert (await shop.servicer.DeleteItems(pb.DeleteItemsRequest(ids=ids), None)).deleted == 1
    response = await shop.upsert(version("a", before), version("late", before), version("kept", before))
    assert (response.accepted, list(response.errors)) == (3, [])
    assert [i.id for i in (await shop.get("a", "late", "kept")).items] == [shop.id("kept")]
    after = datetime.now(UTC)
    await shop.upsert(version("a", after), shop.item("late"))
    await shop.upsert(version("a", before))
    assert [i.title for i in (await shop.get("a", "late")).items] == [f"of {after:%X}", "late"]


async def test_deletes_are_remembered_by_the_next_process_for_a_while(
    home: str, settings: VectorRetrievalSettings, tmp_path: Path
) -> None:
    uri = settings.uri if home == "server" else str(tmp_path / "milvus.db")
    own = settings.model_copy(update={"uri": uri, "index": "deletes", "deletes_kept_days": 1 / 86_400})
    old = datetime.now(UTC)

    async def there(store: Store, *names: str) -> list[bytes]:
        rows = [Row(Item(id=name, title=name, updated_at=old), direction(0), name.encode()) for name in names]
        await store.upsert(rows, MODEL)
        return (await store.get(names)).payloads

    async with opened(own) as store:
        assert await there(store, "a", "b") == [b"a", b"b"]
        assert await store.delete(["a"]) == 1
        await store.flush()
    async with opened(own) as store:
        assert await there(store, "a", "b") == [b"b"]
        await asyncio.sleep(1)
        # What is too old to be remembered is forgotten with the next delete.
        assert await store.delete(["b"]) == 1
        assert await there(store, "a", "b") == [b"a"]


@asynccontextmanager
async def opened(settings: VectorRetrievalSettings) -> AsyncIterator[Store]:
    store = await Store.open(settings)
    yield store
    await store.close()


async def test_dense_hits_are_ordered_by_cosine(shop: Shop) -> None:
    await shop.upsert(shop.item("x"), shop.item("y"), shop.item("z"))
    asked = 3 * direction(1) + 2 * direction(0)
    found = await shop.search(embeddings=query(asked), limit=2)
    assert shop.names(found) == ["y", "x"]
    first = found.candidates[0].hits[0]
    assert first.dense_score == pytest.approx(3 / 13**0.5, abs=1e-5)
    assert (first.score, first.dense_rank) == (first.dense_score, 1)
    assert not first.HasField("lexical_rank")
    assert (found.model_version, bool(found.generation)) == (MODEL, True)


async def test_a_batch_answers_each_query_in_order(shop: Shop) -> None:
    await shop.upsert(shop.item("x"), shop.item("y"), shop.item("z"))
    found = await shop.search(embeddings=query(direction(2), direction(0), direction(1)), limit=1)
    assert [shop.names(found, i) for i in range(3)] == [["z"], ["x"], ["y"]]


async def test_excluded_items_are_never_returned(shop: Shop) -> None:
    await shop.upsert(shop.item("x"), shop.item("y"), shop.item("z"))
    found = await shop.search(embeddings=query(direction(0)), exclude_ids=[shop.id("x"), 'quo"te', shop.id("z")])
    assert shop.names(found) == ["y"]


async def test_vectors_of_another_model_are_refused(shop: Shop) -> None:
    await shop.upsert(shop.item("a"))
    with pytest.raises(VersionMismatchError):
        await shop.search(embeddings=query(direction(0), version="model-2"))
    with pytest.raises(InvalidArgumentError, match="dimensions"):
        await shop.search(embeddings=query(np.ones(3)))


@pytest.mark.usefixtures("can_rank_by_words")
async def test_words_find_items_in_english_and_chinese(shop: Shop) -> None:
    await shop.upsert(
        shop.item("boots", "Waterproof hiking boots for women"),
        shop.item("tea", "西湖龙井绿茶 500克礼盒"),
        shop.item("disk", "Portable SSD 500 GB", brand="Runner"),
    )

    async def by_words(text: str) -> list[str]:
        return shop.names(await shop.search(texts=[text], mode=pb.SEARCH_MODE_LEXICAL))

    assert await by_words("HIKE boot") == ["boots"]
    assert await by_words("绿茶") == ["tea"]
    assert await by_words("茶") == ["tea"]
    assert await by_words("500gb") == ["disk", "tea"]
    assert await by_words("runners") == ["disk"]
    assert await by_words("!?") == []


@pytest.mark.usefixtures("can_rank_by_words")
async def test_hybrid_shows_what_each_half_said(shop: Shop) -> None:
    await shop.upsert(shop.item("a", "red shoe"), shop.item("b", "blue shoe"), shop.item("c", "green hat"))
    found = await shop.search(embeddings=query(2 * direction(2) + direction(1)), texts=["blue shoes"])
    hits = dict(zip(shop.names(found), found.candidates[0].hits, strict=True))
    assert shop.names(found)[0] == "b"
    assert (hits["b"].dense_rank, hits["b"].lexical_rank) == (2, 1)
    assert hits["b"].score == pytest.approx(1 / 62 + 1 / 61)
    assert hits["b"].lexical_score > hits["a"].lexical_score > 0
    assert hits["c"].dense_rank == 1
    assert not hits["c"].HasField("lexical_rank")
    weighted = pb.Fusion(weighted=pb.Weighted(dense=1, lexical=0))
    found = await shop.search(embeddings=query(2 * direction(2) + direction(1)), texts=["blue shoes"], fusion=weighted)
    assert shop.names(found)[0] == "c"
    linear = pb.Fusion(linear=pb.Linear(dense=0.5, lexical=1))
    found = await shop.search(embeddings=query(2 * direction(2) + direction(1)), texts=["blue shoes"], fusion=linear)
    for hit in found.candidates[0].hits:
        assert hit.score == pytest.approx(0.5 * hit.dense_score + hit.lexical_score)


@pytest.mark.usefixtures("can_rank_by_words")
async def test_a_repeated_word_says_little_more(shop: Shop) -> None:
    await shop.upsert(shop.item("a", "lantern lantern lantern oak"), shop.item("b", "lantern iron glass oak"))
    found = await shop.search(texts=["lantern"])
    assert shop.names(found) == ["a", "b"]
    repeated, once = (hit.lexical_score for hit in found.candidates[0].hits)
    # 3 · 1.2 / 3.2 of one occurrence's worth, by BM25 with k1 = 0.2; with Milvus Lite's own 1.5 it would be 1.67.
    assert repeated / once == pytest.approx(1.125, abs=0.01)


@pytest.mark.usefixtures("can_rank_by_words")
async def test_a_query_without_words_keeps_its_dense_half(shop: Shop) -> None:
    await shop.upsert(shop.item("a", "shoe"), shop.item("b", "hat"))
    found = await shop.search(embeddings=query(direction(1), direction(0)), texts=["…", "hat"], limit=1)
    assert shop.names(found, 0) == ["b"]
    assert len(found.candidates) == 2


async def test_a_store_without_words_says_so(shop: Shop, home: str) -> None:
    await shop.upsert(shop.item("a", "shoe"))
    status = await shop.servicer.GetStatus(pb.GetStatusRequest(), None)
    assert (status.capabilities.home, status.capabilities.lexical) == (home, home == "lite")
    assert (status.model_version, status.dimensions) == (MODEL, DIMENSIONS)
    assert status.items > 0
    if home == "lite":
        return
    with pytest.raises(FailedPreconditionError, match="BM25"):
        await shop.search(texts=["shoe"])
    for mode in (pb.SEARCH_MODE_HYBRID, pb.SEARCH_MODE_UNSPECIFIED):
        found = await shop.search(embeddings=query(direction(0)), texts=["shoe"], mode=mode)
        assert (shop.names(found), list(found.degraded)) == (["a"], ["LEXICAL_UNSUPPORTED"])


async def test_counts_follow_writes(shop: Shop) -> None:
    async def count() -> int:
        return int((await shop.servicer.GetStatus(pb.GetStatusRequest(), None)).items)

    before = await count()
    await shop.upsert(*(shop.item(str(i)) for i in range(5)))
    await shop.upsert(shop.item("0"))
    assert await count() == before + 5
    await shop.servicer.DeleteItems(pb.DeleteItemsRequest(ids=[shop.id("0")]), None)
    assert await count() == before + 4


async def test_many_hits_and_large_items(shop: Shop) -> None:
    """1,000 hits, each carrying its whole item; one of them near the most an item may weigh."""
    rng = np.random.default_rng(0)
    items = [shop.item(str(i)) for i in range(1000)]
    items[0].description = "描述" * 7_900
    await shop.upsert(*items, vectors=rng.normal(size=(1000, DIMENSIONS)))
    found = await shop.search(embeddings=query(rng.normal(size=DIMENSIONS)), limit=1000)
    hits = found.candidates[0].hits
    assert len({hit.item.id for hit in hits}) == 1000
    assert [hit.dense_rank for hit in hits] == list(range(1, 1001))
    assert next(hit.item for hit in hits if hit.item.id == items[0].id).description == items[0].description


async def test_a_batch_of_very_many_hits_is_read_and_told_on_threads(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the loop would do nothing else for as long: no health, no other search."""
    on_threads: list[str] = []
    to_thread = asyncio.to_thread

    async def noted(work: Callable[..., Any], *arguments: Any) -> Any:
        on_threads.append(work.__name__)
        return await to_thread(work, *arguments)

    rng = np.random.default_rng(1)
    await shop.upsert(*(shop.item(str(i)) for i in range(800)), vectors=rng.normal(size=(800, DIMENSIONS)))
    monkeypatch.setattr(asyncio, "to_thread", noted)
    asked = rng.normal(size=(3, DIMENSIONS))
    found = await shop.search(embeddings=query(*asked), limit=800)
    assert {"_hits", "answer_to_proto"} <= set(on_threads)
    on_threads.clear()
    for at, vector in enumerate(asked):
        alone = await shop.search(embeddings=query(vector), limit=800)
        assert shop.names(found, at)[:50] == shop.names(alone)[:50]
    assert not {"_hits", "answer_to_proto"} & set(on_threads)


async def test_a_write_goes_on_when_its_caller_leaves(shop: Shop) -> None:
    await shop.upsert(shop.item("first"))
    writing = asyncio.create_task(shop.upsert(shop.item("a")))
    await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    for _ in range(50):
        if (await shop.get("a")).items:
            return
        await asyncio.sleep(0.1)
    pytest.fail("the write was lost")


async def test_searching_while_writing_misses_nothing_acknowledged(shop: Shop, store: Store, home: str) -> None:
    await shop.upsert(*(shop.item(f"kept-{i}") for i in range(10)))
    writing = True

    async def write() -> None:
        nonlocal writing
        for i in range(6):
            await shop.upsert(*(shop.item(f"new-{i}-{j}") for j in range(10)), vectors=-np.ones((10, DIMENSIONS)))
            if home == "lite":
                await store.flush()
        writing = False

    task = asyncio.create_task(write())
    searches = 0
    while writing:
        found = await shop.search(embeddings=query(np.ones(DIMENSIONS)), limit=10)
        assert all(name.startswith("kept-") for name in shop.names(found))
        assert len(found.candidates[0].hits) == 10
        searches += 1
        await asyncio.sleep(0)
    await task
    assert searches > 5
