from dataclasses import replace
from typing import Any

import pytest

from services.user_events import validation
from services.user_events.events import EventType, SentEvent
from services.user_events.validation import violations
from shared.items import Money

NOW = 1_795_524_562_000_000
GOOD = {
    EventType.SEARCH: SentEvent(id="e", type=1, user_id="u", query="lamp"),
    EventType.IMPRESSION: SentEvent(id="e", type=2, user_id="u", item_ids=["a", "b"], first_position=10),
    EventType.VIEW: SentEvent(id="e", type=3, session_id="s", item_id="a"),
    EventType.CLICK: SentEvent(id="e", type=4, user_id="u", item_id="a", sampled_one_in=3),
    EventType.ADD_TO_CART: SentEvent(id="e", type=5, user_id="u", item_id="a", quantity=2),
    EventType.REMOVE_FROM_CART: SentEvent(id="e", type=6, user_id="u", item_id="a", quantity=2),
    EventType.PURCHASE: SentEvent(id="e", type=7, user_id="u", item_id="a", price=Money("EUR", 0)),
    EventType.RETURN: SentEvent(id="e", type=8, user_id="u", item_id="a"),
}


def fields(event: SentEvent) -> list[str]:
    return [violation.field for violation in violations(event, NOW)]


@pytest.mark.parametrize("kind", EventType)
def test_an_event_of_each_type_passes(kind: EventType) -> None:
    assert fields(GOOD[kind]) == []


@pytest.mark.parametrize(
    ("kind", "change", "field"),
    [
        (EventType.VIEW, {"id": ""}, "id"),
        (EventType.VIEW, {"id": "e" * 65}, "id"),
        (EventType.VIEW, {"type": 0}, "type"),
        (EventType.VIEW, {"type": 9}, "type"),
        (EventType.VIEW, {"session_id": ""}, "user_id"),
        (EventType.VIEW, {"user_id": "u" * 257}, "user_id"),
        (EventType.VIEW, {"session_id": "s" * 257}, "session_id"),
        (EventType.VIEW, {"occurred_at": validation.EARLIEST - 1}, "occurred_at"),
        (EventType.VIEW, {"occurred_at": NOW + validation.MAX_AHEAD + 1}, "occurred_at"),
        (EventType.VIEW, {"item_id": " "}, "item_id"),
        (EventType.VIEW, {"item_id": "ü" * 65}, "item_id"),
        (EventType.VIEW, {"item_ids": ["a"]}, "item_ids"),
        (EventType.VIEW, {"query": "lamp"}, "query"),
        (EventType.VIEW, {"quantity": 1}, "quantity"),
        (EventType.VIEW, {"price": Money("EUR", 1)}, "price"),
        (EventType.VIEW, {"sampled_one_in": 1_000_001}, "sampled_one_in"),
        (EventType.VIEW, {"properties": {str(n): "" for n in range(17)}}, "properties"),
        (EventType.VIEW, {"properties": {"": "x"}}, "properties"),
        (EventType.VIEW, {"properties": {"n" * 65: "x"}}, "properties"),
        (EventType.VIEW, {"properties": {"n": "x" * 257}}, "properties"),
        (EventType.VIEW, {"properties": {"n": "\0"}}, "properties"),
        (EventType.SEARCH, {"query": " \t"}, "query"),
        (EventType.SEARCH, {"query": "q" * 501}, "query"),
        (EventType.SEARCH, {"item_id": "a"}, "item_id"),
        (EventType.IMPRESSION, {"item_ids": []}, "item_ids"),
        (EventType.IMPRESSION, {"item_ids": ["a"] * 201}, "item_ids"),
        (EventType.IMPRESSION, {"item_ids": ["a", ""]}, "item_ids[1]"),
        (EventType.IMPRESSION, {"item_ids": ["\0"]}, "item_ids"),
        (EventType.IMPRESSION, {"item_id": "a"}, "item_id"),
        (EventType.IMPRESSION, {"first_position": 1_000_001}, "first_position"),
        (EventType.PURCHASE, {"quantity": 1_000_001}, "quantity"),
        (EventType.PURCHASE, {"price": Money("eur", 1)}, "price.currency_code"),
        (EventType.PURCHASE, {"price": Money("EUR", -1)}, "price"),
        (EventType.PURCHASE, {"price": Money("EUR", 10**18)}, "price"),
    ],
)
def test_what_breaks_a_rule_is_named(kind: EventType, change: dict[str, Any], field: str) -> None:
    assert fields(replace(GOOD[kind], **change)) == [field]


def test_times_at_the_edges_pass() -> None:
    for at in (validation.EARLIEST, NOW + validation.MAX_AHEAD, None):
        assert fields(replace(GOOD[EventType.VIEW], occurred_at=at)) == []


def test_all_that_is_wrong_is_named_at_once() -> None:
    wrong = SentEvent(id="", type=3, query="lamp", item_id="")
    assert fields(wrong) == ["id", "user_id", "query", "item_id"]
