"""What the index tells about itself: generations, items, what the store took, how late writes are."""

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from services.vector_retrieval.gauges import IndexGauges
from services.vector_retrieval.store import Store
from shared.telemetry import metrics
from tests.integration.vector_retrieval.shop import MODEL, Shop, direction, query

pytestmark = pytest.mark.asyncio(loop_scope="module")


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_generations_and_their_items_are_told(shop: Shop, store: Store) -> None:
    await shop.upsert(*(shop.item(name) for name in "abc"))
    await IndexGauges(store).look()
    live = store.roles.live
    assert live is not None
    assert value("aisle_retrieval_generation_info", generation=live.name, model_version=MODEL, role="live") == 1
    assert value("aisle_retrieval_items", generation=live.name) == 3


async def test_recall_is_told_for_as_long_as_its_generation_is_there(store: Store) -> None:
    live = store.roles.live
    assert live is not None
    for name in (live.name, "dropped-by-another-replica"):
        metrics.GENERATION_RECALL.labels(name).set(0.5)
    await IndexGauges(store).look()
    assert REGISTRY.get_sample_value("aisle_retrieval_recall", {"generation": live.name}) == 0.5
    assert REGISTRY.get_sample_value("aisle_retrieval_recall", {"generation": "dropped-by-another-replica"}) is None


async def test_what_the_store_took_is_told_by_operation(shop: Shop) -> None:
    def counts() -> list[float]:
        return [value("aisle_retrieval_store_seconds_count", operation=name) for name in ("upsert", "search", "query")]

    before = counts()
    await shop.upsert(shop.item("a"))
    await shop.search(embeddings=query(direction(0)))
    await shop.get("a")
    assert [now > then for now, then in zip(counts(), before, strict=True)] == [True, True, True]


async def test_a_change_that_is_written_late_shows(shop: Shop) -> None:
    def later_than(seconds: str) -> float:
        return value("aisle_retrieval_write_lag_seconds_count") - value(
            "aisle_retrieval_write_lag_seconds_bucket", le=seconds
        )

    before = later_than("60.0"), later_than("300.0")
    item = shop.item("late")
    item.updated_at.FromDatetime(datetime.now(UTC) - timedelta(seconds=90))
    await shop.upsert(item)
    assert (later_than("60.0"), later_than("300.0")) == (before[0] + 1, before[1])
