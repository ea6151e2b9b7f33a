"""Bad input gets INVALID_ARGUMENT naming the field; nothing crashes, nothing is half-written."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.common.v1 import embeddings_pb2
from aisle.encoder.v1 import query_encoder_pb2
from aisle.gateway.v1 import catalog_pb2, gateway_pb2
from aisle.rerank.v1 import reranker_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from shared.rpc.embeddings import pack
from tests.mesh.conftest import TIMEOUT_S, Shop

Filter = filter_pb2.Filter
OK_ITEM = item_pb2.Item(id="half-1", title="A good item")


def refused(call: Callable[[], Any]) -> list[str]:
    """The fields that a refused call names."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
    assert "Traceback" not in error.details()
    bad = error_details_pb2.BadRequest()
    status = rpc_status.from_call(error)
    assert status is not None
    assert any(detail.Unpack(bad) for detail in status.details)
    return [violation.field for violation in bad.field_violations]


def deep_filter(depth: int) -> Filter:
    filter_ = Filter(in_stock=True)
    for _ in range(depth):
        filter_ = Filter(negate=filter_)
    return filter_


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (gateway_pb2.SearchRequest(), "query"),
        (gateway_pb2.SearchRequest(query=" \t\n "), "query"),
        (gateway_pb2.SearchRequest(query="x" * 501), "query"),
        (gateway_pb2.SearchRequest(query="bed", page_size=101), "page_size"),
        (gateway_pb2.SearchRequest(query="bed", page_size=-1), "page_size"),
        (gateway_pb2.SearchRequest(query="bed", candidate_count=1001), "candidate_count"),
        (gateway_pb2.SearchRequest(query="bed", candidate_count=-5), "candidate_count"),
        (gateway_pb2.SearchRequest(query="bed", page_token="made up"), "page_token"),
        (
            gateway_pb2.SearchRequest(query="bed", filter=Filter(exists="colour_of_magic")),
            "filter.exists",
        ),
        (
            gateway_pb2.SearchRequest(
                query="bed", filter=Filter(text=filter_pb2.TextCondition(field="weight", values=["x"]))
            ),
            "filter.text.field",
        ),
        (
            gateway_pb2.SearchRequest(
                query="bed", filter=Filter(range=filter_pb2.RangeCondition(field="price", at_least=float("nan")))
            ),
            "filter.range",
        ),
        (gateway_pb2.SearchRequest(query="bed", filter=deep_filter(9)), "filter"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_search_names_its_field(shop: Shop, request_: gateway_pb2.SearchRequest, field: str) -> None:
    fields = refused(lambda: shop.gateway.Search(request_, timeout=TIMEOUT_S))
    assert any(named == field or named.startswith(f"{field}.") for named in fields), fields


def test_every_field_at_fault_is_named_at_once(shop: Shop) -> None:
    request = gateway_pb2.SearchRequest(query=" ", page_size=500, candidate_count=-1)
    fields = refused(lambda: shop.gateway.Search(request, timeout=TIMEOUT_S))
    assert fields == ["query", "page_size", "candidate_count"]


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (item_pb2.Item(title="no id"), "items[1].id"),
        (item_pb2.Item(id="no-title"), "items[1].title"),
        (item_pb2.Item(id="x", title="t", rating=9), "items[1].rating"),
        (
            item_pb2.Item(id="x", title="t", price=item_pb2.Money(currency_code="usd", units=1)),
            "items[1].price.currency_code",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_item_is_named_and_its_neighbour_is_not_written(shop: Shop, item: item_pb2.Item, field: str) -> None:
    request = catalog_pb2.UpsertItemsRequest(items=[OK_ITEM, item])
    assert refused(lambda: shop.catalog.UpsertItems(request, timeout=TIMEOUT_S)) == [field]
    with pytest.raises(grpc.RpcError) as caught:
        shop.catalog.GetItem(catalog_pb2.GetItemRequest(id=OK_ITEM.id), timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def vectors(rows: Any, version: str) -> embeddings_pb2.Embeddings:
    return pack(np.asarray(rows, np.float32), version)


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        (np.full((1, 384), np.nan), "embeddings.data"),
        (np.ones((1, 12)), "embeddings.dimensions"),
        (np.ones((2, 384)), "embeddings"),
    ],
    ids=["nan", "dimensions", "rows"],
)
def test_bad_vectors_are_named_and_nothing_is_written(shop: Shop, rows: Any, field: str) -> None:
    version = shop.search().info.model_versions.index
    request = vector_retrieval_pb2.UpsertItemsRequest(items=[OK_ITEM], embeddings=vectors(rows, version))
    fields = refused(lambda: shop.retrieval.UpsertItems(request, timeout=TIMEOUT_S))
    assert any(named.startswith(field) for named in fields), fields
    got = shop.retrieval.GetItems(vector_retrieval_pb2.GetItemsRequest(ids=[OK_ITEM.id]), timeout=TIMEOUT_S)
    assert not got.items


@pytest.mark.parametrize("limit", [0, 1001])
def test_a_limit_out_of_range_is_named(shop: Shop, limit: int) -> None:
    request = vector_retrieval_pb2.SearchRequest(texts=["bed"], limit=limit)
    assert refused(lambda: shop.retrieval.Search(request, timeout=TIMEOUT_S)) == ["limit"]


def test_vectors_of_another_model_never_meet_the_index(shop: Shop) -> None:
    request = vector_retrieval_pb2.SearchRequest(embeddings=vectors(np.ones((1, 384)), "another"), limit=5)
    with pytest.raises(grpc.RpcError) as caught:
        shop.retrieval.Search(request, timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "'another'" in caught.value.details()
    assert shop.search().info.model_versions.index in caught.value.details()


@pytest.mark.parametrize(
    ("service", "method", "message", "field"),
    [
        ("gateway", "/aisle.gateway.v1.Gateway/Search", b"\x0a\x02\xff\xfe", "query"),
        ("gateway", "/aisle.gateway.v1.Catalog/GetItem", b"\x0a\x02\xff\xfe", "id"),
        ("query_encoder", "/aisle.encoder.v1.QueryEncoder/EncodeQueries", b"\x0a\x02\xff\xfe", "queries[0]"),
        ("reranker", "/aisle.rerank.v1.Reranker/Rerank", b"\x0a\x02\xff\xfe", "query"),
        ("item_encoder", "/aisle.encoder.v1.ItemEncoder/EncodeItems", b"\x0a\x04\x0a\x02\xff\xfe", "items[0].id"),
        ("vector_retrieval", "/aisle.retrieval.v1.VectorRetrieval/GetItems", b"\x0a\x02\xff\xfe", "ids[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_utf8_is_named_by_every_service(
    shop: Shop, service: str, method: str, message: bytes, field: str
) -> None:
    call = shop.channels[service].unary_unary(method)
    assert refused(lambda: call(message, timeout=TIMEOUT_S)) == [field]


def test_a_message_over_the_limit_is_refused_and_the_next_one_served(shop: Shop) -> None:
    big = gateway_pb2.SearchRequest(query="x" * (5 * 1024 * 1024))
    assert refused(lambda: shop.gateway.Search(big, timeout=TIMEOUT_S)) == ["request"]
    assert shop.search().results


def test_a_message_beyond_what_is_read_at_all_is_refused_by_the_transport(shop: Shop) -> None:
    huge = gateway_pb2.SearchRequest(query="x" * (17 * 1024 * 1024))
    with pytest.raises(grpc.RpcError) as caught:
        shop.gateway.Search(huge, timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert shop.search().results


def test_the_model_services_name_blank_queries(shop: Shop) -> None:
    encode = query_encoder_pb2.EncodeQueriesRequest(queries=["bed", " "])
    assert refused(lambda: shop.query_encoder.EncodeQueries(encode, timeout=TIMEOUT_S)) == ["queries[1]"]
    rerank = reranker_pb2.RerankRequest(query="", items=[OK_ITEM])
    assert refused(lambda: shop.reranker.Rerank(rerank, timeout=TIMEOUT_S)) == ["query"]
