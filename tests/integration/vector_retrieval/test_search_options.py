"""What a search can be asked for beyond the nearest few: pages, thresholds, groups, facets, and nothing missed."""

import numpy as np
import pytest
from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.gateway import wire
from services.vector_retrieval.servicer import VectorRetrievalServicer
from services.vector_retrieval.store import Store
from shared.errors import InvalidArgumentError
from tests.integration.vector_retrieval.shop import DIMENSIONS, Shop, direction, query

pytestmark = pytest.mark.asyncio(loop_scope="module")


def fan(count: int) -> np.ndarray:
    """Directions that turn away from the first axis step by step: the nearer to it, the smaller the index."""
    angles = np.linspace(0, np.pi / 2, count)
    return np.outer(np.cos(angles), direction(0)) + np.outer(np.sin(angles), direction(1))


async def test_pages_follow_each_other(shop: Shop) -> None:
    await shop.upsert(*(shop.item(str(i)) for i in range(9)), vectors=fan(9))
    pages = [
        shop.names(await shop.search(embeddings=query(direction(0)), limit=4, offset=offset)) for offset in (0, 4, 8)
    ]
    assert pages == [["0", "1", "2", "3"], ["4", "5", "6", "7"], ["8"]]
    second = await shop.search(embeddings=query(direction(0)), limit=4, offset=4)
    assert [hit.dense_rank for hit in second.candidates[0].hits] == [5, 6, 7, 8]


async def test_pages_by_what_was_shown_hold_while_others_write(shop: Shop) -> None:
    """Each page but the first comes after a better item did, a shown one was written again and one was deleted."""
    await shop.upsert(*(shop.item(str(i)) for i in range(20)), vectors=fan(20))
    shown: list[str] = []
    for page in range(6):
        excluded = [shop.id(name) for name in shown]
        found = shop.names(await shop.search(embeddings=query(direction(0)), limit=4, exclude_ids=excluded))
        shown += found
        await shop.upsert(shop.item(f"new-{page}"), shop.item(found[-1]), vectors=fan(2))
        await shop.servicer.DeleteItems(pb.DeleteItemsRequest(ids=[shop.id(str(19 - page))]), None)
    assert sorted(shown) == sorted([*map(str, range(16)), *(f"new-{i}" for i in range(5))])


async def test_hits_below_the_least_score_are_left_out(shop: Shop) -> None:
    await shop.upsert(*(shop.item(str(i)) for i in range(3)), vectors=fan(3))
    found = await shop.search(embeddings=query(direction(0), direction(1)), min_score=0.5)
    assert [shop.names(found, i) for i in range(2)] == [["0", "1"], ["2", "1"]]


async def test_exact_search_compares_everything(shop: Shop) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(700, DIMENSIONS))
    await shop.upsert(*(shop.item(str(i)) for i in range(700)), vectors=vectors)
    asked = rng.normal(size=(2, DIMENSIONS))
    cosine = (asked / np.linalg.norm(asked, axis=1, keepdims=True)) @ (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ).T
    found = await shop.search(embeddings=query(*asked), exact=True, limit=20)
    for i in range(2):
        assert shop.names(found, i) == [str(n) for n in np.argsort(-cosine[i])[:20]]
        assert found.candidates[i].hits[0].dense_score == pytest.approx(cosine[i].max(), abs=1e-5)


async def test_a_group_has_one_hit(shop: Shop) -> None:
    """Forty variants of the best product must not hide the others."""
    families = ["boot"] * 40 + ["shoe"] * 3 + [""] * 2 + ["hat"]
    items = [shop.item(str(i), group_id=family and shop.id(family)) for i, family in enumerate(families)]
    await shop.upsert(*items, vectors=fan(len(items)))
    found = await shop.search(embeddings=query(direction(0)), one_per_group=True, limit=5)
    assert shop.names(found) == ["0", "40", "43", "44", "45"]
    found = await shop.search(embeddings=query(direction(0)), one_per_group=True, limit=2, offset=1)
    assert shop.names(found) == ["40", "43"]
    found = await shop.search(embeddings=query(direction(1), direction(0)), one_per_group=True, limit=2)
    assert [shop.names(found, i) for i in range(2)] == [["45", "44"], ["0", "40"]]


async def test_groups_left_out_by_the_filter_take_no_place(shop: Shop) -> None:
    """As the gateway asks for what is like one of forty variants."""
    families = ["boot"] * 40 + ["shoe"] * 2 + [""]
    items = [shop.item(str(i), group_id=family and shop.id(family)) for i, family in enumerate(families)]
    await shop.upsert(*items, vectors=fan(len(items)))
    others = wire.filter_outside(shop.mine(), [shop.id("boot")])
    found = await shop.search(embeddings=query(direction(0)), filter=others, exclude_ids=[shop.id("0")], limit=5)
    assert shop.names(found) == ["40", "41", "42"]


@pytest.mark.usefixtures("can_rank_by_words")
async def test_groups_of_a_hybrid_search(shop: Shop) -> None:
    families = ["boot", "boot", "shoe", ""]
    items = [shop.item(str(i), "red shoe", group_id=family and shop.id(family)) for i, family in enumerate(families)]
    await shop.upsert(*items, vectors=fan(4))
    found = await shop.search(embeddings=query(direction(0)), texts=["shoes"], one_per_group=True)
    assert sorted(shop.names(found))[1:] == ["2", "3"]
    assert len(shop.names(found)) == 3


async def test_a_selective_filter_still_gets_its_k(shop: Shop) -> None:
    """The items that meet the filter are the farthest from the query, where a walk of the index hardly comes."""
    count, kept = 1000, 30
    items = [shop.item(str(i), brand="rare" if i >= count - kept else "common") for i in range(count)]
    await shop.upsert(*items, vectors=fan(count))
    rare = filter_pb2.Filter(text=filter_pb2.TextCondition(field="brand", values=["rare"]))
    both = filter_pb2.Filter(all_of=filter_pb2.FilterList(filters=[shop.mine(), rare]))
    for limit in (kept - 1, kept, kept + 20):
        found = await shop.search(embeddings=query(direction(0)), filter=both, limit=limit)
        assert shop.names(found) == [str(i) for i in range(count - kept, count)][:limit]


async def test_facets_count_the_candidates(shop: Shop) -> None:
    def item(name: str, brand: str, path: list[str], price: int | None, currency: str = "EUR") -> item_pb2.Item:
        money = None if price is None else item_pb2.Money(currency_code=currency, units=price)
        return shop.item(name, brand=brand, category_path=path, price=money)

    await shop.upsert(
        item("0", "Bo_sch", ["Tools", "Drills > 10%"], 10),
        item("1", "Bo_sch", ["Tools", "Saws"], 99),
        item("2", "", ["Garden"], 100),
        item("3", "Acme", [], None),
        item("4", "Acme", ["Tools"], 5, "USD"),
        item("5", "Far", ["Far"], 1),
        vectors=fan(6),
    )
    fields = [
        pb.FacetRequest(field="brand"),
        pb.FacetRequest(field="category_path", limit=2),
        pb.FacetRequest(field="price", bounds=[10, 100]),
    ]
    found = await shop.search(embeddings=query(direction(0)), limit=1, facets=fields, facet_depth=5)
    assert shop.names(found) == ["0"]
    brands, categories, prices = found.candidates[0].facets
    assert [(c.text, c.count) for c in brands.counts] == [("Acme", 2), ("Bo_sch", 2)]
    assert [(list(c.category.path), c.count) for c in categories.counts] == [(["Tools"], 3), (["Garden"], 1)]
    assert [(c.price.currency_code, c.price.at_least, c.price.less_than, c.count) for c in prices.counts] == [
        ("EUR", 10, 100, 2),
        ("EUR", 100, 0, 1),
        ("USD", 0, 10, 1),
    ]
    assert [c.price.HasField("less_than") for c in prices.counts] == [True, False, True]


async def test_facets_of_an_empty_shop(shop: Shop, empty_store: Store) -> None:
    shop.servicer = VectorRetrievalServicer(empty_store)
    found = await shop.search(embeddings=query(direction(0)), facets=[pb.FacetRequest(field="brand")])
    assert [(f.field, len(f.counts)) for f in found.candidates[0].facets] == [("brand", 0)]


async def test_options_that_make_no_sense(shop: Shop) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await shop.search(
            embeddings=query(direction(0)),
            offset=1001,
            min_score=float("nan"),
            facet_depth=1001,
            facets=[
                pb.FacetRequest(field="title"),
                pb.FacetRequest(field="brand", bounds=[1]),
                pb.FacetRequest(field="price", bounds=[2, 1], limit=1001),
            ],
        )
    assert [v.field for v in refused.value.violations] == [
        "offset",
        "min_score",
        "facet_depth",
        "facets[0].field",
        "facets[1].bounds",
        "facets[2].limit",
        "facets[2].bounds",
    ]


async def test_status_tells_what_the_store_can_do(shop: Shop, home: str) -> None:
    can = (await shop.servicer.GetStatus(pb.GetStatusRequest(), None)).capabilities
    assert (can.lexical, can.hybrid, can.nullable) == ((True,) * 3 if home == "lite" else (False,) * 3)
    assert (can.group_by, can.shared) == (True, home == "server")
    assert len(can.consistencies) == (1 if home == "lite" else 3)
