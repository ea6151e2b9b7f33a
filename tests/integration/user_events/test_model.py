"""The store against a plain model of it: whatever is written, in whatever order and however often."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from services.user_events.settings import UserEventsSettings
from services.user_events.store import Store
from tests.integration.user_events.client import CART, CLICK, IMPRESSION, PURCHASE, VIEW, Client, ago, event, fresh

KINDS = (IMPRESSION, VIEW, CLICK, CART, PURCHASE)
NAMES = {IMPRESSION: "impressions", VIEW: "views", CLICK: "clicks", CART: "carts", PURCHASE: "purchases"}


@dataclass(frozen=True)
class Plan:
    """An event by small numbers: which id, who, what, when."""

    number: int
    user: int
    kind: int
    item: int
    minutes_ago: int
    one_in: int


@dataclass
class Model:
    """What should be kept."""

    events: dict[int, Plan] = field(default_factory=dict)

    def write(self, batch: list[Plan]) -> int:
        """How many of `batch` are new."""
        before = len(self.events)
        for plan in batch:
            self.events.setdefault(plan.number, plan)
        return len(self.events) - before

    def history(self, user: int) -> list[int]:
        mine = [plan for plan in self.events.values() if plan.user == user]
        return [plan.number for plan in sorted(mine, key=lambda plan: plan.minutes_ago)]

    def counts(self, item: int) -> Counter[str]:
        counted: Counter[str] = Counter()
        for plan in self.events.values():
            if plan.item == item:
                counted[NAMES[plan.kind]] += plan.one_in
        return counted

    def forget(self, user: int) -> int:
        gone = [number for number, plan in self.events.items() if plan.user == user]
        for number in gone:
            del self.events[number]
        return len(gone)


PLANS = st.builds(
    Plan,
    number=st.integers(0, 25),
    user=st.integers(0, 2),
    kind=st.sampled_from(KINDS),
    item=st.integers(0, 2),
    # All different, so that one order is right.
    minutes_ago=st.integers(0, 10_000),
    one_in=st.integers(1, 5),
)
BATCHES = st.lists(st.lists(PLANS, min_size=1, max_size=12), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def runner(settings: UserEventsSettings) -> Iterator[tuple[asyncio.Runner, Store]]:
    with asyncio.Runner() as loop:
        store = loop.run(Store.open(settings))
        yield loop, store
        loop.run(store.close())


@given(BATCHES, st.integers(0, 2), st.booleans())
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_told_is_what_was_written(
    runner: tuple[asyncio.Runner, Store], batches: list[list[Plan]], forgotten: int, at_once: bool
) -> None:
    loop, store = runner
    # Of plans of one number the first counts, which is one only where they are written one after the other.
    if at_once:
        first: dict[int, Plan] = {}
        batches = [[first.setdefault(plan.number, plan) for plan in batch] for batch in batches]
    kept = Model()
    for batch in batches:
        kept.write(batch)
    assume(max(Counter(plan.minutes_ago for plan in kept.events.values()).values()) == 1)
    loop.run(compare(Client(store), batches, forgotten, at_once))


async def compare(client: Client, batches: list[list[Plan]], forgotten: int, at_once: bool) -> None:
    run = fresh("run")
    model = Model()
    new = sum(model.write(batch) for batch in batches)

    async def write(batch: list[Plan]) -> Any:
        return await client.write(*(told(plan, run) for plan in batch))

    answers = await asyncio.gather(*map(write, batches)) if at_once else [await write(batch) for batch in batches]
    assert sum(answer.accepted for answer in answers) == sum(map(len, batches))
    assert sum(answer.accepted - answer.duplicates for answer in answers) == new
    counted = [model.counts(item) for item in range(3)]
    if model.history(forgotten):
        receipt = await client.forget(f"{run} user {forgotten}")
        assert receipt.events == model.forget(forgotten)
    for user in range(3):
        history = await client.history(f"{run} user {user}", types=KINDS, limit=1000)
        assert [int(past.id.rpartition(" ")[2]) for past in history.events] == model.history(user)
        assert bool(history.version) == bool(model.history(user))
    for item, stats in enumerate(await client.stats(*(f"{run} item {item}" for item in range(3)))):
        assert {name: getattr(stats, name) for name in NAMES.values()} == {
            name: counted[item][name] for name in NAMES.values()
        }


def told(plan: Plan, run: str) -> Any:
    fields: dict[str, Any] = (
        {"item_ids": [f"{run} item {plan.item}"]} if plan.kind == IMPRESSION else {"item_id": f"{run} item {plan.item}"}
    )
    return event(
        plan.kind,
        id=f"{run} {plan.number}",
        user_id=f"{run} user {plan.user}",
        occurred_at=ago(minutes=plan.minutes_ago),
        sampled_one_in=plan.one_in,
        **fields,
    )
