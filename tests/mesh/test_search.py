"""What a caller gets from a mesh that is well."""

import itertools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.gateway.v1 import catalog_pb2, gateway_pb2

from tests.mesh.conftest import BUNK_BEDS, GENERATED, TIMEOUT_S, Shop, load, special_items

Filter = filter_pb2.Filter


def ids(response: object) -> list[str]:
    return [result.item.id for result in response.results]  # type: ignore[attr-defined]


@pytest.mark.timeout(150)
def test_the_obvious_item_comes_first_and_says_where_its_score_came_from(shop: Shop) -> None:
    response = shop.search(explain=True)
    assert set(ids(response)[:4]) == BUNK_BEDS
    assert {result.item.price.units for result in response.results if result.item.id == "bunk-1"} == {749}
    breakdown = response.results[0].breakdown
    assert 1 <= breakdown.dense_rank <= 4
    assert breakdown.lexical_rank >= 1
    assert breakdown.HasField("rerank_score")
    assert breakdown.HasField("retrieval_score")
    scores = [result.score for result in response.results]
    assert scores == sorted(scores, reverse=True)
    info = response.info
    assert [timing.stage for timing in info.timings] == ["encode", "retrieve", "rerank", "total"]
    assert not info.degraded
    assert info.request_id
    assert info.generation
    assert info.model_versions.query_encoder == info.model_versions.index == info.model_versions.reranker != ""
    assert not shop.search().results[0].HasField("breakdown")


def test_a_chinese_query_finds_chinese_items(shop: Shop) -> None:
    response = shop.search("蓝牙耳机", explain=True)
    assert "zh-1" in ids(response)[:3]
    found = next(result for result in response.results if result.item.id == "zh-1")
    assert found.breakdown.HasField("lexical_rank")


@pytest.mark.parametrize(
    ("filter_", "holds"),
    [
        (
            Filter(range=filter_pb2.RangeCondition(field="price", less_than=50)),
            lambda item: item.price.units + item.price.nanos / 1e9 < 50,
        ),
        (
            Filter(category=filter_pb2.CategoryCondition(path=["Furniture"])),
            lambda item: item.category_path[0] == "Furniture",
        ),
        (Filter(in_stock=True), lambda item: item.in_stock),
        (
            Filter(negate=Filter(text=filter_pb2.TextCondition(field="brand", values=["Brightnest"]))),
            lambda item: item.brand != "Brightnest",
        ),
        (
            Filter(text=filter_pb2.TextCondition(field="attributes.color", values=["espresso"])),
            lambda item: "espresso" in item.attributes["color"].text,
        ),
        (
            Filter(text=filter_pb2.TextCondition(field="brand", values=['O"Brien \\ Söhne'])),
            lambda item: item.id == "odd-1",
        ),
    ],
)
def test_every_result_meets_the_filter(shop: Shop, filter_: Filter, holds: object) -> None:
    response = shop.search("bed lamp", filter=filter_, page_size=50)
    assert response.results
    assert all(holds(result.item) for result in response.results)  # type: ignore[operator]


def test_a_filter_cannot_be_used_to_inject_an_expression(shop: Shop) -> None:
    sneaky = filter_pb2.TextCondition(field="brand", values=['x"] or id != "'])
    assert not shop.search(filter=Filter(text=sneaky)).results


def test_pages_follow_each_other_without_gap_or_repeat(shop: Shop) -> None:
    whole = ids(shop.search("gift", page_size=30))
    pages, token = [], ""
    for _ in range(3):
        response = shop.search("gift", page_size=10, page_token=token)
        pages += ids(response)
        token = response.next_page_token
        assert token
    assert pages == whole


def test_pages_hold_while_the_shop_is_written_to(shop: Shop) -> None:
    """Between pages: better items come in, items of the list change and disappear, shown ones are written again."""

    def lamp(name: str, title: str) -> item_pb2.Item:
        return item_pb2.Item(id=f"page-{name}", title=title, tags=["paged"])

    load(shop, [lamp(str(at), f"Lamp of shape {at} for a desk") for at in range(50)])
    asked = {"query": "banker lamp", "candidate_count": 40, "page_size": 6}
    asked["filter"] = Filter(text=filter_pb2.TextCondition(field="tags", values=["paged"]))
    whole = ids(shop.search(**{**asked, "page_size": 100}))
    assert len(whole) == 40
    response = shop.search(**asked)
    pages, gone, stopped = [ids(response)], whole[20:40:10], threading.Event()

    def write() -> None:
        for at in itertools.count():
            load(shop, [lamp(f"new-{at}-{n}", "Banker lamp") for n in range(10)])
            load(shop, [lamp(whole[at % 20].removeprefix("page-"), "Lamp of another shape")])
            if stopped.is_set():
                return

    shop.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(ids=gone), timeout=TIMEOUT_S)
    writing = threading.Thread(target=write)
    writing.start()
    try:
        while response.next_page_token:
            # One round of writes at least, a page of which comes in before the rest of the list.
            before = status_items(shop)
            while status_items(shop) < before + 10:
                time.sleep(0.02)
            response = shop.search(**asked, page_token=response.next_page_token)
            pages.append(ids(response))
    finally:
        stopped.set()
        writing.join()
        remove(shop, "paged")
    shown = [name for page in pages for name in page]
    assert len(shown) == len(set(shown))
    assert set(shown) == set(whole) - set(gone)


def remove(shop: Shop, tag: str) -> None:
    """Deletes what the tag marks."""
    marked = Filter(text=filter_pb2.TextCondition(field="tags", values=[tag]))
    while found := ids(shop.search("lamp", filter=marked, page_size=100)):
        shop.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(ids=found), timeout=TIMEOUT_S)


def test_similar_items_are_alike_and_never_the_item_itself(shop: Shop) -> None:
    request = gateway_pb2.SimilarItemsRequest(item_id="bunk-1", page_size=5)
    response = shop.gateway.SimilarItems(request, timeout=TIMEOUT_S)
    assert len(response.results) == 5
    assert "bunk-1" not in ids(response)
    with pytest.raises(grpc.RpcError) as caught:
        shop.gateway.SimilarItems(gateway_pb2.SimilarItemsRequest(item_id="nobody"), timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_an_item_is_written_read_found_replaced_and_removed(shop: Shop) -> None:
    item = item_pb2.Item(id="trip-1", title="Zyxophone brass mouthpiece", brand="Quillon")
    assert shop.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=[item]), timeout=TIMEOUT_S).accepted == 1
    stored = shop.catalog.GetItem(catalog_pb2.GetItemRequest(id="trip-1"), timeout=TIMEOUT_S).item
    assert (stored.title, stored.brand) == (item.title, item.brand)
    assert stored.HasField("updated_at")
    assert ids(shop.search("zyxophone mouthpiece"))[0] == "trip-1"
    item.title = "Zyxophone silver mouthpiece"
    shop.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=[item]), timeout=TIMEOUT_S)
    assert shop.search("zyxophone mouthpiece").results[0].item.title == item.title
    gone = catalog_pb2.DeleteItemsRequest(ids=["trip-1", "never-there"])
    assert shop.catalog.DeleteItems(gone, timeout=TIMEOUT_S).deleted == 1
    assert "trip-1" not in ids(shop.search("zyxophone mouthpiece"))
    with pytest.raises(grpc.RpcError) as caught:
        shop.catalog.GetItem(catalog_pb2.GetItemRequest(id="trip-1"), timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_an_import_acknowledges_in_order_refuses_rows_alone_and_is_idempotent(shop: Shop) -> None:
    before = status_items(shop)
    good = special_items()
    bad = item_pb2.Item(id="bad-1")
    batches = [catalog_pb2.ImportItemsRequest(items=[good[0], bad]), catalog_pb2.ImportItemsRequest(items=good[1:])]
    seen = list(shop.catalog.ImportItems(iter(batches), timeout=60))
    assert [(r.rows, r.accepted, r.rejected) for r in seen] == [(2, 1, 1), (4, 3, 1)]
    assert [(e.row, e.item_id, e.field) for e in seen[0].errors] == [(1, "bad-1", "title")]
    assert status_items(shop) == before == GENERATED + len(good)


def status_items(shop: Shop) -> int:
    from aisle.retrieval.v1 import vector_retrieval_pb2

    status = shop.retrieval.GetStatus(vector_retrieval_pb2.GetStatusRequest(), timeout=TIMEOUT_S)
    return int(status.items)


def test_duplicates_in_an_import_keep_the_last(shop: Shop) -> None:
    twins = [item_pb2.Item(id="twin", title="first edition"), item_pb2.Item(id="twin", title="second edition")]
    assert load(shop, twins).rejected == 0
    stored = shop.catalog.GetItem(catalog_pb2.GetItemRequest(id="twin"), timeout=TIMEOUT_S).item
    assert stored.title == "second edition"
    shop.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(ids=["twin"]), timeout=TIMEOUT_S)


def test_a_foreign_client_with_reflection_gets_the_same_answer(shop: Shop) -> None:
    buf = Path(sys.executable).with_name("buf")
    if not buf.is_file():
        pytest.skip("buf is not installed: make install")
    answered = subprocess.run(
        [
            *(buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge"),
            *("-d", json.dumps({"query": "kids bunk bed with stairs", "pageSize": 5})),
            f"http://{shop.mesh.address('gateway')}/aisle.gateway.v1.Gateway/Search",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    found = [result["item"]["id"] for result in json.loads(answered.stdout)["results"]]
    assert found == ids(shop.search(page_size=5))
