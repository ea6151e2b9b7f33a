"""Items by a filter alone, and the vectors that come with hits."""

import asyncio

import numpy as np
import pytest
from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.vector_retrieval.browse import LOOKED_AT
from services.vector_retrieval.servicer import VectorRetrievalServicer
from services.vector_retrieval.store import Store
from shared.errors import InvalidArgumentError
from shared.rpc import embeddings
from tests.integration.vector_retrieval.shop import DIMENSIONS, MODEL, Shop, direction, query

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOUND_S = 10.0
"""Twice what a read that never waits may lag behind."""


async def browse(shop: Shop, written: int, **fields: object) -> pb.BrowseItemsResponse:
    """Among this test's items alone, once `written` of them are seen."""
    async with asyncio.timeout(BOUND_S):
        while len((await ask(shop, limit=1000)).items) < min(written, 1000):  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.1)
    return await ask(shop, **fields)


async def ask(shop: Shop, **fields: object) -> pb.BrowseItemsResponse:
    request = pb.BrowseItemsRequest(**{"limit": 10, "filter": shop.mine(), **fields})  # type: ignore[arg-type]
    return await shop.servicer.BrowseItems(request, None)


def names(shop: Shop, response: pb.BrowseItemsResponse) -> list[str]:
    return [item.id.removeprefix(f"{shop.prefix}-") for item in response.items]


def popular(shop: Shop, **popularity: float | None) -> list[item_pb2.Item]:
    return [shop.item(name, popularity=value) for name, value in popularity.items()]


async def test_the_popular_come_first_and_the_unknown_last(shop: Shop) -> None:
    await shop.upsert(*popular(shop, a=None, b=0.0, c=7.5, d=12.0, e=7.5, f=None))
    assert names(shop, await browse(shop, 6)) == ["d", "c", "e", "b", "a", "f"]
    assert names(shop, await browse(shop, 6, limit=2)) == ["d", "c"]


async def test_filter_and_excluded_ids_hold(shop: Shop) -> None:
    await shop.upsert(*popular(shop, a=1, b=2, c=3, d=4))
    liked = filter_pb2.Filter(range=filter_pb2.RangeCondition(field="popularity", at_most=3))
    both = filter_pb2.Filter(all_of=filter_pb2.FilterList(filters=[shop.mine(), liked]))
    assert names(shop, await browse(shop, 4, filter=both, exclude_ids=[shop.id("b")])) == ["c", "a"]
    assert (await browse(shop, 4, exclude_ids=[shop.id("d")], limit=1)).items[0] == (await shop.get("c")).items[0]


async def test_without_a_filter_all_items_are_browsed(shop: Shop) -> None:
    await shop.upsert(*popular(shop, a=1e12))
    await browse(shop, 1)
    assert names(shop, await shop.servicer.BrowseItems(pb.BrowseItemsRequest(limit=1), None)) == ["a"]


async def test_vectors_come_in_the_order_of_the_items(shop: Shop) -> None:
    await shop.upsert(*popular(shop, a=1, b=3, c=2))
    found = await browse(shop, 3, include_embeddings=True)
    np.testing.assert_allclose(embeddings.unpack(found.embeddings), [direction(1), direction(2), direction(0)])
    status = await shop.servicer.GetStatus(pb.GetStatusRequest(), None)
    assert (found.generation, found.model_version, found.embeddings.model_version) == (status.generation, MODEL, MODEL)
    assert not (await browse(shop, 3)).HasField("embeddings")


async def test_what_is_looked_at_is_put_in_order(shop: Shop) -> None:
    """However few are asked for, they are the best of a thousand."""
    count = LOOKED_AT + 200
    rng = np.random.default_rng(3)
    items = [shop.item(f"{i:05}", popularity=float(liking)) for i, liking in enumerate(rng.permutation(count))]
    for start in range(0, count, 600):
        await shop.upsert(*items[start : start + 600], vectors=rng.normal(size=(600, DIMENSIONS)))
    found = (await browse(shop, count, limit=1000)).items
    assert len(found) == LOOKED_AT
    assert [item.popularity for item in found] == sorted({item.popularity for item in found}, reverse=True)
    assert list((await ask(shop, limit=3)).items) == list(found[:3])


async def test_an_empty_shop_has_nothing_to_browse(shop: Shop, empty_store: Store) -> None:
    shop.servicer = VectorRetrievalServicer(empty_store)
    assert await ask(shop, include_embeddings=True) == pb.BrowseItemsResponse()


async def test_a_filter_that_nothing_meets_finds_nothing(shop: Shop) -> None:
    await shop.upsert(shop.item("elsewhere"))
    nobody = filter_pb2.Filter(text=filter_pb2.TextCondition(field="brand", values=["no such brand"]))
    found = await ask(shop, filter=nobody, include_embeddings=True)
    assert (len(found.items), embeddings.unpack(found.embeddings).shape) == (0, (0, DIMENSIONS))


async def test_every_field_at_fault_is_named(shop: Shop) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await ask(shop, limit=0, exclude_ids=["x"] * 1001, filter=filter_pb2.Filter(exists="nothing"))
    assert [v.field for v in refused.value.violations] == ["limit", "exclude_ids", "filter.exists"]


async def test_hits_bring_their_vectors(shop: Shop) -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(30, DIMENSIONS)).astype(np.float32)
    await shop.upsert(*(shop.item(str(i)) for i in range(30)), vectors=vectors)
    for options in ({}, {"exact": True}, {"offset": 3}, {"one_per_group": True}):
        found = await shop.search(embeddings=query(*vectors[:2]), limit=5, include_embeddings=True, **options)
        for i in range(2):
            rows = embeddings.unpack(found.candidates[i].embeddings)
            assert len(rows) == 5
            np.testing.assert_allclose(rows, vectors[[int(n) for n in shop.names(found, i)]], atol=1e-6)
            assert found.candidates[i].embeddings.model_version == MODEL
    assert not (await shop.search(embeddings=query(vectors[0]))).candidates[0].HasField("embeddings")


@pytest.mark.usefixtures("can_rank_by_words")
@pytest.mark.parametrize("mode", [pb.SEARCH_MODE_HYBRID, pb.SEARCH_MODE_LEXICAL])
async def test_hits_found_by_words_bring_their_vectors_too(shop: Shop, mode: pb.SearchMode.ValueType) -> None:
    titles = ["green lamp", "red chair", "red lamp"]
    await shop.upsert(*(shop.item(str(i), title) for i, title in enumerate(titles)))
    found = await shop.search(
        embeddings=query(direction(0)), texts=["lamp"], mode=mode, limit=2, include_embeddings=True
    )
    expected = [direction(int(n)) for n in shop.names(found)]
    assert len(expected) == 2
    np.testing.assert_allclose(embeddings.unpack(found.candidates[0].embeddings), expected, atol=1e-6)
