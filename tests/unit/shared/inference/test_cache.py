import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest

from shared.errors import DeadlineError, InternalError, OverloadedError
from shared.inference.cache import Key, Outcome, QueryCache, QueryVectors
from shared.inference.lru import ENTRY_BYTES
from shared.inference.queue import Priority

INTERACTIVE = Priority.INTERACTIVE


def keys(*texts: str, version: str = "v1") -> list[Key]:
    return [Key(version, text) for text in texts]


class Model:
    """Counts what is computed; while `gate` is cleared, computing waits."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.computed: list[Key] = []
        self.cancelled = 0
        self.error: Exception | None = None
        self.rows = QueryVectors(np.zeros(0, np.float32)).rows

    async def __call__(self, missing: Sequence[Key]) -> Sequence[Outcome]:
        self.computed += missing
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return [QueryVectors(np.full(4, len(key.text), np.float32), self.rows) for key in missing]


async def fetch(cache: QueryCache, model: Model, wanted: list[Key], deadline: float | None = None) -> list[Outcome]:
    return await cache.fetch(wanted, model, priority=INTERACTIVE, deadline=deadline)


async def test_what_was_computed_once_is_known() -> None:
    cache, model = QueryCache(1 << 20), Model()
    first = await fetch(cache, model, keys("red", "blue", "red"))
    again = await fetch(cache, model, keys("blue", "green"))
    assert [int(row.sentence[0]) for row in first if isinstance(row, QueryVectors)] == [3, 4, 3]
    assert [int(row.sentence[0]) for row in again if isinstance(row, QueryVectors)] == [4, 5]
    assert model.computed == keys("red", "blue", "green")
    assert (cache.hits, cache.misses) == (1, 3)


async def test_versions_do_not_meet() -> None:
    cache, model = QueryCache(1 << 20), Model()
    await fetch(cache, model, keys("red", version="v1"))
    await fetch(cache, model, keys("red", version="v2"))
    assert len(model.computed) == 2


async def test_equal_queries_that_arrive_together_run_once() -> None:
    cache, model = QueryCache(1 << 20), Model()
    model.gate.clear()
    calls = [asyncio.ensure_future(fetch(cache, model, keys("red"))) for _ in range(50)]
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(*calls)
    assert model.computed == keys("red")
    assert (cache.hits, cache.misses) == (49, 1)


async def test_a_follower_survives_the_leaders_cancellation() -> None:
    cache, model = QueryCache(1 << 20), Model()
    model.gate.clear()
    leader = asyncio.ensure_future(fetch(cache, model, keys("red")))
    await asyncio.sleep(0)
    follower = asyncio.ensure_future(fetch(cache, model, keys("red")))
    await asyncio.sleep(0)
    leader.cancel()
    await asyncio.sleep(0)
    model.gate.set()
    assert len(await follower) == 1
    assert model.computed == keys("red")


async def test_when_nobody_waits_any_more_the_computation_is_cancelled() -> None:
    cache, model = QueryCache(1 << 20), Model()
    model.gate.clear()
    calls = [asyncio.ensure_future(fetch(cache, model, keys("red"))) for _ in range(3)]
    await asyncio.sleep(0.01)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0)
    assert model.cancelled == 1
    model.gate.set()
    assert len(await fetch(cache, model, keys("red"))) == 1, "a cancelled flight is not joined"


async def test_a_followers_own_deadline_holds() -> None:
    cache, model = QueryCache(1 << 20), Model()
    model.gate.clear()
    leader = asyncio.ensure_future(fetch(cache, model, keys("red")))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineError):
        await fetch(cache, model, keys("red"), deadline=time.monotonic() + 0.01)
    model.gate.set()
    assert len(await leader) == 1


async def test_another_callers_deadline_is_not_ours() -> None:
    cache, model = QueryCache(1 << 20), Model()
    model.gate.clear()
    model.error = DeadlineError("the leader's deadline")
    leader = asyncio.ensure_future(fetch(cache, model, keys("red"), deadline=time.monotonic() + 60))
    await asyncio.sleep(0)
    follower = asyncio.ensure_future(fetch(cache, model, keys("red")))
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.sleep(0)
    model.error = None
    assert len(await follower) == 1
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)


async def test_ones_own_deadline_is_not_anothers_though_a_little_of_it_is_left() -> None:
    cache, model = QueryCache(1 << 20), Model()
    model.error = DeadlineError("too little time was left")
    with pytest.raises(DeadlineError, match="too little"):
        await fetch(cache, model, keys("red"), deadline=time.monotonic() + 0.2)
    assert model.computed == keys("red")


async def test_anothers_many_rows_that_found_no_room_are_not_ours() -> None:
    cache, model = QueryCache(1 << 20), Model()
    model.gate.clear()
    model.error = OverloadedError("no room for 3 more")
    leader = asyncio.ensure_future(fetch(cache, model, keys("red", "blue", "green")))
    await asyncio.sleep(0)
    follower = asyncio.ensure_future(fetch(cache, model, keys("red")))
    await asyncio.sleep(0)
    model.gate.set()
    with pytest.raises(OverloadedError):
        await leader
    model.error = None
    assert len(await follower) == 1


async def test_errors_reach_all_who_wait_and_are_not_kept() -> None:
    cache, model = QueryCache(1 << 20), Model()
    model.error = OverloadedError("full")
    outcomes = await asyncio.gather(*(fetch(cache, model, keys("red")) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(outcome, OverloadedError) for outcome in outcomes)
    model.error = None
    assert len(await fetch(cache, model, keys("red"))) == 1


async def test_a_failed_row_is_not_kept() -> None:
    cache = QueryCache(1 << 20)
    asked = []

    async def compute(missing: Sequence[Key]) -> Sequence[Outcome]:
        asked.append(len(missing))
        return [InternalError("poison") for _ in missing]

    for _ in range(2):
        (outcome,) = await cache.fetch(keys("red"), compute, priority=INTERACTIVE, deadline=None)
        assert isinstance(outcome, InternalError)
    assert asked == [1, 1]


async def test_it_is_bounded_in_bytes() -> None:
    cache, model = QueryCache(10 * (ENTRY_BYTES + 40)), Model()
    for index in range(100):
        await fetch(cache, model, keys(f"query {index}"))
        assert cache.bytes <= 10 * (ENTRY_BYTES + 40)
    await fetch(cache, model, keys("query 99"))
    assert len(model.computed) == 100


class Reader(Model):
    """Gives token vectors too."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = np.ones((3, 4), np.float16)


async def fetch_rows(cache: QueryCache, model: Model, wanted: list[Key]) -> list[bool]:
    """Which of them have token vectors."""
    found = await cache.fetch(wanted, model, token_vectors=True, priority=INTERACTIVE, deadline=None)
    return [isinstance(outcome, QueryVectors) and outcome.rows is not None for outcome in found]


async def test_token_vectors_are_kept_where_they_were_asked_for_and_serve_all() -> None:
    cache, plain, reader = QueryCache(1 << 20), Model(), Reader()
    await fetch(cache, plain, keys("red"))
    without = cache.bytes
    assert await fetch_rows(cache, reader, keys("red", "blue")) == [True, True]
    assert reader.computed == keys("red", "blue"), "known without them is not known"
    assert cache.bytes == 2 * without + 4 + 2 * 24
    assert await fetch_rows(cache, reader, keys("red", "blue")) == [True, True]
    await fetch(cache, plain, keys("red", "blue"))
    assert (len(plain.computed), len(reader.computed)) == (1, 2)
    assert (cache.hits, cache.misses) == (4, 3)


async def test_who_wants_token_vectors_joins_only_a_flight_that_brings_them() -> None:
    cache, plain, reader = QueryCache(1 << 20), Model(), Reader()
    plain.gate.clear()
    reader.gate.clear()
    first = asyncio.ensure_future(fetch(cache, plain, keys("red")))
    await asyncio.sleep(0)
    wanting = [asyncio.ensure_future(fetch_rows(cache, reader, keys("red"))) for _ in range(3)]
    await asyncio.sleep(0)
    late = asyncio.ensure_future(fetch(cache, plain, keys("red")))
    await asyncio.sleep(0)
    reader.gate.set()
    assert await asyncio.gather(*wanting) == [[True]] * 3
    assert len(await late) == 1
    assert not first.done()
    plain.gate.set()
    assert len(await first) == 1
    assert (plain.computed, reader.computed) == (keys("red"), keys("red"))
    assert await fetch_rows(cache, reader, keys("red")) == [True], "what landed later had none, and replaced nothing"
    assert len(reader.computed) == 1


async def test_a_shopper_does_not_wait_for_a_bulk_jobs_flight() -> None:
    cache, slow, fast = QueryCache(1 << 20), Model(), Model()
    slow.gate.clear()
    bulk = asyncio.ensure_future(cache.fetch(keys("red"), slow, priority=Priority.BULK, deadline=None))
    await asyncio.sleep(0)
    assert len(await fetch(cache, fast, keys("red"))) == 1
    slow.gate.set()
    await bulk
