"""What is left of an answer when parts die, and that it comes back by itself."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

import grpc
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.gateway.v1 import catalog_pb2, gateway_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.mesh.conftest import BUNK_BEDS, TIMEOUT_S, Shop
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)

RERANKER_UNAVAILABLE = gateway_pb2.DEGRADED_REASON_RERANKER_UNAVAILABLE
QUERY_ENCODER_UNAVAILABLE = gateway_pb2.DEGRADED_REASON_QUERY_ENCODER_UNAVAILABLE


@contextmanager
def stopped(shop: Shop, name: str) -> Iterator[None]:
    """One service ended, and started again afterwards."""
    shop.mesh.stop_service(name)
    try:
        yield
    finally:
        shop.mesh.start_service(name)
        recovers(shop)


@contextmanager
def hung(shop: Shop, name: str) -> Iterator[None]:
    """One service that accepts connections and answers nothing."""
    shop.mesh.signal(name, SIGSTOP)
    try:
        yield
    finally:
        shop.mesh.signal(name, SIGCONT)
        recovers(shop)


def recovers(shop: Shop, within_s: float = 20.0) -> None:
    """Full answers again, without anybody touching the gateway."""
    shop.wait_connected()
    eventually(lambda: not shop.search().info.degraded, within_s)
    eventually(lambda: shop.health("gateway", "aisle.gateway.v1.Catalog") == "SERVING", within_s)


def reasons(response: Any) -> list[int]:
    return [degradation.reason for degradation in response.info.degraded]


def test_without_the_reranker_the_order_is_the_retrievals(shop: Shop) -> None:
    with stopped(shop, "reranker"):
        for _ in range(5):
            response = shop.search(explain=True)
            assert reasons(response) == [RERANKER_UNAVAILABLE]
            scores = [result.breakdown.retrieval_score for result in response.results]
            assert scores == sorted(scores, reverse=True)
            assert not any(result.breakdown.HasField("rerank_score") for result in response.results)
        assert not response.info.model_versions.reranker
        assert shop.health("gateway") == "SERVING"


@pytest.mark.parametrize("deadline_s", [0.6, 2.0])
def test_a_reranker_that_hangs_costs_no_deadline(shop: Shop, deadline_s: float) -> None:
    with hung(shop, "reranker"):
        for _ in range(3):
            response = shop.search(timeout=deadline_s)
            assert reasons(response) == [RERANKER_UNAVAILABLE]
            assert response.results[0].item.id in BUNK_BEDS


def test_without_the_query_encoder_words_are_left(shop: Shop) -> None:
    with stopped(shop, "query_encoder"):
        response = shop.search(explain=True)
        assert QUERY_ENCODER_UNAVAILABLE in reasons(response)
        assert response.results[0].item.id in BUNK_BEDS
        assert all(result.breakdown.HasField("lexical_rank") for result in response.results)
        assert not any(result.breakdown.HasField("dense_rank") for result in response.results)
        assert shop.health("gateway") == "SERVING"


def test_a_query_encoder_that_hangs_costs_no_deadline(shop: Shop) -> None:
    with hung(shop, "query_encoder"):
        response = shop.search(timeout=2)
        assert QUERY_ENCODER_UNAVAILABLE in reasons(response)
        assert response.results


def test_without_the_item_encoder_search_is_whole_and_writes_are_refused(shop: Shop) -> None:
    with stopped(shop, "item_encoder"):
        assert not shop.search().info.degraded
        request = catalog_pb2.UpsertItemsRequest(items=[item_pb2.Item(id="late-1", title="Late item")])
        unavailable(lambda: shop.catalog.UpsertItems(request, timeout=5))
        eventually(lambda: shop.health("gateway", "aisle.gateway.v1.Catalog") == "NOT_SERVING", 5)
        assert shop.health("gateway", "aisle.gateway.v1.Gateway") == "SERVING"


def test_without_retrieval_the_caller_hears_so_in_time_and_when_to_retry(shop: Shop) -> None:
    with stopped(shop, "vector_retrieval"):
        for _ in range(5):
            started = time.monotonic()
            unavailable(lambda: shop.search(timeout=2))
            assert time.monotonic() - started < 2
        eventually(lambda: shop.health("gateway") == "NOT_SERVING", 5)
    assert shop.search().results[0].item.id in BUNK_BEDS


def test_a_retrieval_that_hangs_is_reported_inside_the_deadline(shop: Shop) -> None:
    with hung(shop, "vector_retrieval"):
        unavailable(lambda: shop.search(timeout=1.5))


def test_an_acknowledged_write_survives_kill_9_of_retrieval(shop: Shop) -> None:
    item = item_pb2.Item(id="survivor", title="Survivor's enamel mug")
    accepted = shop.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=[item]), timeout=TIMEOUT_S).accepted
    assert accepted == 1
    shop.mesh.signal("vector_retrieval", SIGKILL)
    eventually(lambda: not shop.mesh.runs("vector_retrieval"), 5)
    shop.mesh.stop_service("vector_retrieval")
    shop.mesh.start_service("vector_retrieval")
    recovers(shop)
    stored = shop.catalog.GetItem(catalog_pb2.GetItemRequest(id="survivor"), timeout=TIMEOUT_S).item
    assert stored.title == item.title
    shop.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(ids=["survivor"]), timeout=TIMEOUT_S)


def unavailable(call: Callable[[], Any]) -> None:
    """Asserts UNAVAILABLE with a hint when to retry."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, caught.value.details()
    status = rpc_status.from_call(caught.value)
    retry = error_details_pb2.RetryInfo()
    assert status is not None
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() > 0
