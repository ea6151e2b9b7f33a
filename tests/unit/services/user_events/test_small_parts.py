"""Identities, popularity, the cache, settings, and the wire's odd corners."""

import asyncio

import pytest
from aisle.events.v1 import event_pb2
from aisle.events.v1 import user_events_pb2 as pb
from google.protobuf import duration_pb2, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from services.user_events import database, wire
from services.user_events.cache import SHARE, STALE_S, Cache
from services.user_events.events import EventType
from services.user_events.identity import Identities
from services.user_events.popularity import click_through_rate, decayed_weights
from services.user_events.settings import UserEventsSettings
from shared.errors import InvalidArgumentError, OverloadedError
from shared.rpc import context


def test_a_key_is_of_an_id_its_kind_and_the_secret() -> None:
    known = Identities(b"secret")
    keys = {
        known.user("jane"),
        known.user("joe"),
        known.session("jane"),
        known.user(""),
        Identities(b"other").user("jane"),
    }
    assert len(keys) == 5
    assert {len(key) for key in keys} == {16}
    assert known.user("jane") == Identities(b"secret").user("jane")


def test_types_are_the_contracts() -> None:
    numbers = {name.removeprefix("EVENT_TYPE_"): number for name, number in event_pb2.EventType.items()}
    assert {kind.name: int(kind) for kind in EventType} == {k: n for k, n in numbers.items() if n}


def test_weights_halve_with_every_half_life() -> None:
    found = {(kind, age): weight for kind, age, weight in decayed_weights(14 * 24, 7.0)}
    assert found[EventType.PURCHASE, 0] == found[EventType.PURCHASE, -1] == 4.0
    assert found[EventType.PURCHASE, 7] == 2.0
    assert found[EventType.VIEW, 14] == 0.25
    assert max(age for _, age in found) == 14
    assert not any(kind == EventType.IMPRESSION for kind, _ in found)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1))
def test_a_rate_lies_between_its_own_and_the_shops(clicks: int, impressions: int, average: float) -> None:
    rate = click_through_rate(clicks, impressions, average)
    assert 0 <= rate <= 1
    if 0 < clicks <= impressions:
        own = clicks / impressions
        assert min(own, average) - 1e-9 <= rate <= max(own, average) + 1e-9


async def test_an_answer_is_made_once_for_all_and_kept_for_its_time() -> None:
    now = 0.0
    made = 0

    async def make() -> int:
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        return made

    cache = Cache[int](5.0, lambda: now)
    assert await asyncio.gather(*(cache.get("a", make) for _ in range(5))) == [1] * 5
    now = 4.9
    assert await cache.get("a", make) == 1
    assert await cache.get("b", make) == 2
    now = 5.1
    # Given once more, while the next is made.
    assert await cache.get("a", make) == 1
    await asyncio.sleep(0.01)
    assert await cache.get("a", make) == 3
    now += 5 + STALE_S
    assert await cache.get("a", make) == 4


async def test_an_answer_that_takes_long_is_kept_longer() -> None:
    now = 0.0
    made = 0

    async def make() -> int:
        nonlocal now, made
        made += 1
        now += 3.0
        return made

    cache = Cache[int](5.0, lambda: now)
    assert await cache.get("a", make) == 1
    now = 3.0 + 3.0 / SHARE - 0.1
    assert await cache.get("a", make) == 1
    await asyncio.sleep(0)
    assert made == 1


async def test_nothing_is_kept_where_nothing_is_to_be_kept() -> None:
    made = iter(range(9))

    async def make() -> int:
        return next(made)

    cache = Cache[int](0.0)
    assert [await cache.get("a", make) for _ in range(3)] == [0, 1, 2]


async def test_what_is_made_for_many_has_nobodys_deadline() -> None:
    context.set_deadline(0.0)

    async def make() -> float | None:
        return context.current_deadline()

    assert await Cache[float | None](5.0).get("a", make) is None


async def test_an_answer_that_failed_is_not_kept_and_a_caller_that_leaves_takes_nothing_along() -> None:
    cache = Cache[int](5.0)

    async def fail() -> int:
        raise ZeroDivisionError

    async def slowly() -> int:
        await asyncio.sleep(0.01)
        return 7

    with pytest.raises(ZeroDivisionError):
        await cache.get("a", fail)
    first, second = (asyncio.create_task(cache.get("a", slowly)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 7


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("postgresql://aisle:secret@host/events", "no password"),
        ("postgresql://aisle@host", "must be a path or"),
        ("mysql://host/events", "must be a path or"),
        ("", "at least 1"),
    ],
)
def test_a_uri_that_is_none_is_refused(uri: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says) as refused:
        UserEventsSettings(uri=uri)
    assert "secret" not in str(refused.value.errors(include_input=False))


def test_secrets_are_not_printed() -> None:
    settings = UserEventsSettings(uri="postgresql://a@h/d", password="p4ss", identity_key="k3y", attribution_key="t0k")
    told = settings.redacted_json()
    assert not any(secret in told for secret in ("p4ss", "k3y", "t0k"))


@pytest.mark.parametrize(
    ("seconds", "nanos", "hours"),
    [(1, 0, 1), (3600, 0, 1), (3600, 1, 2), (3601, 5, 2), (0, 1, 1), (400 * 86_400, 0, 9600)],
)
def test_a_window_is_rounded_up_to_hours(seconds: int, nanos: int, hours: int) -> None:
    window = duration_pb2.Duration(seconds=seconds, nanos=nanos)
    assert wire.window_from_proto(pb.ListPopularItemsRequest(window=window)) == hours


@given(st.integers(0, 253_402_300_799 * 1_000_000))
def test_a_time_comes_back_as_it_was(at: int) -> None:
    assert wire.time_from_proto(wire.time_to_proto(at), "t") == at


@pytest.mark.parametrize(("seconds", "nanos"), [(2**62, 0), (0, -1), (0, 10**9), (-(2**62), 0)])
def test_a_time_that_is_none_is_refused(seconds: int, nanos: int) -> None:
    with pytest.raises(InvalidArgumentError, match="occurred_at"):
        wire.event_from_proto(event_pb2.Event(occurred_at=timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)))


def test_a_pool_without_a_free_connection_is_too_much_work_and_no_outage() -> None:
    with pytest.raises(OverloadedError) as refused, database._translated():
        raise PoolTimeoutError
    assert refused.value.reason == "CONNECTIONS_BUSY"
