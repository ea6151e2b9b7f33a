import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from aisle.events.v1 import event_pb2, user_events_pb2

from services.gateway import asks, validation
from services.gateway.impressions import Impressions
from services.gateway.ports import Impression
from services.gateway.settings import GatewaySettings
from shared.attribution import Attribution, AttributionTokens
from shared.items import MAX_ID_BYTES
from shared.telemetry import metrics
from tests.unit.services.gateway.shop import Shop


def impressions(
    log: Shop,
    *,
    one_in: int = 1,
    waiting: int = 100,
    every_s: float = 0.001,
    chance: Callable[[], float] = lambda: 0.0,
) -> Impressions:
    return Impressions(log, sample_one_in=one_in, waiting=waiting, every_s=every_s, timeout_s=1.0, chance=chance)


def dropped(reason: str) -> float:
    return float(metrics.IMPRESSIONS_DROPPED.labels(reason)._value.get())


async def test_a_page_is_told_with_what_led_to_it() -> None:
    log = Shop({})
    shown = impressions(log, one_in=3)
    shown.shown("u", ["a", "b"], 10, "token")
    await asyncio.sleep(0.05)
    [event] = log.written
    assert (event.user_id, event.item_ids, event.first_position) == ("u", ["a", "b"], 10)
    assert (event.attribution_token, event.sampled_one_in) == ("token", 3)
    await shown.close()


async def test_a_sample_is_a_sample() -> None:
    log = Shop({})
    chances = iter([0.1, 0.9, 0.4, 0.6])
    shown = impressions(log, one_in=2, chance=lambda: next(chances))
    for _ in range(4):
        shown.shown("u", ["a"], 0, "")
    await shown.close()
    assert len(log.written) == 2


@pytest.mark.parametrize(("user", "items", "one_in"), [("", ["a"], 1), ("u", [], 1), ("u", ["a"], 0)])
async def test_nothing_to_tell(user: str, items: list[str], one_in: int) -> None:
    log = Shop({})
    shown = impressions(log, one_in=one_in)
    shown.shown(user, items, 0, "")
    await shown.close()
    assert not log.written


async def test_what_waits_is_bounded_and_what_is_over_is_counted() -> None:
    log = Shop({})
    shown = impressions(log, waiting=2)
    before = dropped("buffer_full")
    for _ in range(5):
        shown.shown("u", ["a"], 0, "")
    await shown.close()
    assert len(log.written) == 2
    assert dropped("buffer_full") - before == 3


async def test_a_log_that_is_down_costs_impressions_and_nothing_else() -> None:
    log = Shop({})
    log.down = {"log"}
    shown = impressions(log)
    before = dropped("log_unavailable")
    shown.shown("u", ["a"], 0, "")
    await asyncio.sleep(0.05)
    assert dropped("log_unavailable") - before == 1
    log.down = set()
    shown.shown("u", ["b"], 0, "")
    await shown.close()
    assert [event.item_ids for event in log.written] == [["b"]]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_full_batches_are_told_one_after_another() -> None:
    log = Shop({})
    shown = impressions(log, waiting=10_000, every_s=60.0)
    for _ in range(1_050):
        shown.shown("u", ["a"], 0, "")
    await settle()
    assert 800 < len(log.written) < 1_050
    await shown.close()


async def test_closing_waits_for_nothing_but_the_log() -> None:
    log = Shop({})
    shown = impressions(log, waiting=10_000, every_s=60.0)
    shown.shown("u", ["a"], 0, "")
    await settle()
    for _ in range(1_050):
        shown.shown("u", ["a"], 0, "")
    await asyncio.wait_for(shown.close(), 1)
    assert len(log.written) == 1_051


async def test_a_log_that_failed_is_not_asked_again_at_once_however_many_wait() -> None:
    log = Shop({})
    log.down = {"log"}
    shown = impressions(log, waiting=10_000, every_s=60.0)
    before = dropped("log_unavailable")
    for _ in range(1_000):
        shown.shown("u", ["a"], 0, "")
    await settle()
    assert log.calls == ["write"]
    await asyncio.wait_for(shown.close(), 1)
    assert log.calls == ["write"] * 2
    assert dropped("log_unavailable") - before == 1_000


async def test_a_batch_of_the_largest_pages_is_a_request_that_the_log_takes() -> None:
    class Log(Shop):
        async def write(self, events: Any, *, timeout_s: float) -> Any:
            sizes.append(user_events_pb2.WriteEventsRequest(events=map(_event, events)).ByteSize())
            return []

    sizes: list[int] = []
    shown = impressions(Log({}), waiting=1_000)
    # As random as text can be: tokens are compressed.
    letters = "".join(map(chr, random.Random(0).choices(range(0x20000, 0x2A000), k=validation.MAX_QUERY_CHARS)))
    ids = [f"{at}".rjust(MAX_ID_BYTES, "x") for at in range(validation.MAX_PAGE_SIZE)]
    attribution = Attribution(query=letters, experiment_arm=letters[: asks.MAX_ARM_CHARS])
    token = AttributionTokens(b"key").issue(attribution, ids)
    for _ in range(1_000):
        shown.shown(letters[: asks.MAX_USER_ID_CHARS], ids, 0, token)
    await shown.close()
    assert max(sizes) < GatewaySettings().max_request_bytes


def _event(shown: Impression) -> event_pb2.Event:
    return event_pb2.Event(
        id=shown.id, user_id=shown.user_id, item_ids=shown.item_ids, attribution_token=shown.attribution_token
    )
