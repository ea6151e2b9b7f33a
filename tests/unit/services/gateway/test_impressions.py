import asyncio
from collections.abc import Callable

import pytest

from services.gateway.impressions import Impressions
from shared.telemetry import metrics
from tests.unit.services.gateway.shop import Shop


def impressions(
    log: Shop, *, one_in: int = 1, waiting: int = 100, chance: Callable[[], float] = lambda: 0.0
) -> Impressions:
    return Impressions(log, sample_one_in=one_in, waiting=waiting, every_s=0.001, timeout_s=1.0, chance=chance)


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
