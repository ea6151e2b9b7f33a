"""Behaviour in, recommendations out, over the real processes."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from aisle.events.v1 import event_pb2, user_events_pb2
from aisle.gateway.v1 import gateway_pb2

from tests.mesh.conftest import TIMEOUT_S, Shop
from tests.mesh.test_failure import stopped
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)

COLD_START = gateway_pb2.DEGRADED_REASON_COLD_START
PERSONALIZATION_UNAVAILABLE = gateway_pb2.DEGRADED_REASON_PERSONALIZATION_UNAVAILABLE


@pytest.fixture
def user(shop: Shop) -> Iterator[str]:
    name = f"user-{uuid.uuid4().hex}"
    yield name
    history = shop.user_events.GetHistory(user_events_pb2.GetHistoryRequest(user_id=name), timeout=TIMEOUT_S)
    if history.events:
        forget(shop, name)


def forget(shop: Shop, user: str) -> Any:
    return shop.user_events.ForgetUser(user_events_pb2.ForgetUserRequest(user_id=user), timeout=TIMEOUT_S).receipt


def did(shop: Shop, user: str, kind: event_pb2.EventType.ValueType, item_id: str, **fields: Any) -> None:
    event = event_pb2.Event(id=uuid.uuid4().hex, type=kind, user_id=user, item_id=item_id, **fields)
    response = shop.user_events.WriteEvents(user_events_pb2.WriteEventsRequest(events=[event]), timeout=TIMEOUT_S)
    assert (response.accepted, response.unattributed) == (1, 0)


def home(shop: Shop, user: str, **fields: Any) -> Any:
    request = gateway_pb2.RecommendRequest(user_id=user, exclude_seen=True, explain=True, **fields)
    return shop.gateway.Recommend(request, timeout=TIMEOUT_S)


def ids(response: Any) -> list[str]:
    return [result.item.id for result in response.results]


def reasons(response: Any) -> list[int]:
    return [one.reason for one in response.info.degraded]


def test_the_last_event_changes_the_next_recommendation(shop: Shop, user: str) -> None:
    before = home(shop, user)
    assert reasons(before) == [COLD_START]
    assert before.results
    did(shop, user, event_pb2.EVENT_TYPE_VIEW, "bunk-1")
    # The very next one: no second need pass.
    after = home(shop, user)
    assert reasons(after) == []
    assert ids(after) != ids(before)
    assert "bunk-1" not in ids(after)
    assert after.results[0].breakdown.personalization > 0


def test_a_click_comes_back_with_what_led_to_it(shop: Shop, user: str) -> None:
    found = shop.search(user_id=user, page_size=5, experiment_arm="b")
    clicked = found.results[3].item.id
    token = found.info.attribution_token
    did(shop, user, event_pb2.EVENT_TYPE_CLICK, clicked, attribution_token=token)
    request = user_events_pb2.GetHistoryRequest(user_id=user, types=[event_pb2.EVENT_TYPE_CLICK])
    [event] = shop.user_events.GetHistory(request, timeout=TIMEOUT_S).events
    assert event.item_id == clicked
    told = event.attribution
    assert (told.request_id, told.surface, told.position) == (found.info.request_id, "SEARCH", 3)
    assert (told.query, told.experiment_arm) == ("kids bunk bed with stairs", "b")
    assert told.index_version == found.info.model_versions.index


def test_what_was_shown_is_in_the_log(shop: Shop, user: str) -> None:
    found = shop.search(user_id=user, page_size=5)
    request = user_events_pb2.GetHistoryRequest(user_id=user, types=[event_pb2.EVENT_TYPE_IMPRESSION])
    eventually(lambda: len(shop.user_events.GetHistory(request, timeout=TIMEOUT_S).events) == 1, 5.0)
    [shown] = shop.user_events.GetHistory(request, timeout=TIMEOUT_S).events
    assert shown.attribution.request_id == found.info.request_id


def test_a_history_has_a_say_in_searches_and_the_answer_tells_how_much(shop: Shop, user: str) -> None:
    did(shop, user, event_pb2.EVENT_TYPE_PURCHASE, "zh-1")
    personal = shop.search("gift", user_id=user, personalization_weight=0.9, explain=True)
    assert all(result.breakdown.HasField("personalization") for result in personal.results)
    assert ids(personal) != ids(shop.search("gift", explain=True))
    assert "history" in [timing.stage for timing in personal.info.timings]


def test_a_forgotten_user_is_cold_at_once(shop: Shop, user: str) -> None:
    did(shop, user, event_pb2.EVENT_TYPE_VIEW, "bunk-1")
    assert reasons(home(shop, user)) == []
    assert forget(shop, user).events >= 1
    assert reasons(home(shop, user)) == [COLD_START]


def test_similar_items_and_baskets(shop: Shop) -> None:
    for context in (gateway_pb2.RECOMMEND_CONTEXT_SIMILAR_ITEMS, gateway_pb2.RECOMMEND_CONTEXT_BASKET):
        request = gateway_pb2.RecommendRequest(context=context, item_ids=["bunk-1"], page_size=5)
        response = shop.gateway.Recommend(request, timeout=TIMEOUT_S)
        assert len(response.results) == 5
        assert "bunk-1" not in ids(response)


def test_without_the_log_answers_are_the_same_for_everybody(shop: Shop, user: str) -> None:
    did(shop, user, event_pb2.EVENT_TYPE_VIEW, "bunk-1")
    with stopped(shop, "user_events"):
        search = shop.search(user_id=user)
        assert search.results
        assert PERSONALIZATION_UNAVAILABLE in reasons(search)
        recommended = home(shop, user)
        assert recommended.results
        assert PERSONALIZATION_UNAVAILABLE in reasons(recommended)
    eventually(lambda: not home(shop, user).info.degraded, 20.0)


def test_no_log_line_holds_a_user_id(shop: Shop, user: str) -> None:
    did(shop, user, event_pb2.EVENT_TYPE_VIEW, "bunk-1")
    home(shop, user)
    shop.search(user_id=user)
    for log in shop.mesh.spec.logs.glob("*.log"):
        assert user not in log.read_text()
