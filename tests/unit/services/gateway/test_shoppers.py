import pytest

from services.gateway.ports import EventType
from shared.errors import UnavailableError
from tests.unit.services.gateway.fakes import FakeClock
from tests.unit.services.gateway.shop import Shop, Thing, shoppers


def second() -> float:
    return 1.0


def shop() -> Shop:
    found = Shop({"a": Thing([1.0, 0.0]), "b": Thing([0.0, 1.0])})
    found.did("u", EventType.VIEW, "a", at_s=1)
    return found


async def test_a_profile_is_read_once_and_asked_about_each_time() -> None:
    index = shop()
    kept = shoppers(index)
    first = await kept.profile("u", None, second)
    assert await kept.profile("u", None, second) is first
    assert index.calls == ["history", "get_many", "encode_users", "history"]


async def test_an_event_ends_what_was_kept_at_once() -> None:
    index = shop()
    kept = shoppers(index)
    first = await kept.profile("u", None, second)
    index.did("u", EventType.VIEW, "b", at_s=2)
    after = await kept.profile("u", None, second)
    assert first is not None
    assert after is not None
    assert after.vector != first.vector
    assert {item.item_id for item in after.items} == {"a", "b"}


async def test_a_forgotten_user_is_unknown_at_once() -> None:
    index = shop()
    kept = shoppers(index)
    assert await kept.profile("u", None, second)
    del index.past["u"]
    assert await kept.profile("u", None, second) is None
    # And is not remembered by the place that was theirs.
    assert not kept._kept


async def test_profiles_are_bounded_in_number_and_age() -> None:
    index = shop()
    index.did("v", EventType.VIEW, "b")
    kept = shoppers(index, kept=1)
    clock = FakeClock()
    kept.clock = clock
    await kept.profile("u", None, second)
    await kept.profile("v", None, second)
    assert len(kept._kept) == 1
    clock.advance(61)
    index.calls.clear()
    await kept.profile("v", None, second)
    assert index.calls == ["history", "get_many", "encode_users"]


async def test_stronger_and_newer_events_weigh_more() -> None:
    index = shop()
    index.did("u", EventType.PURCHASE, "b", at_s=1)
    index.did("u", EventType.VIEW, "c", at_s=-60)
    index.did("u", EventType.VIEW, "d", at_s=-86_400)
    profile = await shoppers(index).profile("u", None, second)
    assert profile is not None
    weights = dict(profile.items)
    assert weights["b"] == pytest.approx(12 * weights["a"])
    assert weights["c"] == pytest.approx(weights["a"] / 2)
    assert weights["d"] == pytest.approx(weights["a"] / 4)


async def test_one_order_is_one_occasion_and_repeats_add_nothing() -> None:
    index = Shop({"a": Thing([1.0, 0.0])})
    for line in range(5):
        index.did("u", EventType.PURCHASE, f"line-{line}", at_s=1_000 + line)
    index.did("u", EventType.PURCHASE, "line-0", at_s=0)
    index.did("u", EventType.PURCHASE, "before", at_s=1)
    profile = await shoppers(index).profile("u", None, second)
    assert profile is not None
    assert dict(profile.items) == {**{f"line-{line}": 6.0 for line in range(5)}, "before": 3.0}


async def test_without_an_encoder_there_is_no_vector_and_the_next_time_it_is_asked_again() -> None:
    index = shop()
    index.down = {"encoder"}
    kept = shoppers(index)
    profile = await kept.profile("u", None, second)
    assert profile is not None
    assert profile.vector is None
    assert profile.unread
    index.down = set()
    again = await kept.profile("u", None, second)
    assert again is not None
    assert again.vector is not None


async def test_a_history_of_items_that_are_gone_has_no_vector() -> None:
    index = shop()
    del index.things["a"]
    profile = await shoppers(index).profile("u", None, second)
    assert profile is not None
    assert profile.vector is None
    assert not profile.unread


async def test_the_logs_failure_is_the_callers_to_handle() -> None:
    index = shop()
    index.down = {"log"}
    with pytest.raises(UnavailableError):
        await shoppers(index).profile("u", None, second)
