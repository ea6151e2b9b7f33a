import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.gateway.admission import Admission, AdmissionPolicy, Refusal
from services.gateway.budgets import StageBudget
from shared.errors import DeadlineError, InvalidArgumentError, OverloadedError, UnavailableError
from shared.telemetry import metrics
from tests.unit.services.gateway.fakes import FakeClock


class Work:
    """Requests that end when told to, in the order they began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    def of(self, name: str) -> Callable[[], Awaitable[str]]:
        self._ends[name] = asyncio.Event()

        async def call() -> str:
            self.begun.append(name)
            await self._ends[name].wait()
            return name

        return call

    def end(self, name: str) -> None:
        self._ends[name].set()


def admission(running: int = 1, waiting: int = 1, patience_s: float = 30.0, **more: Any) -> Admission:
    policy = AdmissionPolicy(
        running=running,
        least_running=1,
        waiting=waiting,
        patience=StageBudget(patience_s, 0.25),
        good_time=StageBudget(1.0, 0.5),
    )
    return Admission(policy, **{"remaining_s": lambda: None, **more})


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def refused(reason: Refusal) -> float:
    return float(metrics.REQUESTS_REFUSED.labels("Search", reason.value)._value.get())


async def test_what_is_more_waits_and_is_let_in_in_turn() -> None:
    door, work = admission(running=2, waiting=2), Work()
    tasks = [asyncio.create_task(door.run("Search", work.of(name))) for name in "abcd"]
    await settle()
    assert work.begun == ["a", "b"]
    work.end("b")
    await settle()
    assert work.begun == ["a", "b", "c"]
    for name in "acd":
        work.end(name)
    assert await asyncio.gather(*tasks) == list("abcd")
    # And the places are free again.
    assert await asyncio.wait_for(asyncio.gather(*(door.run("Search", no_wait) for _ in range(2))), 1) == ["", ""]


async def no_wait() -> str:
    return ""


async def test_where_a_queue_stands_whoever_came_last_is_let_in() -> None:
    clock = FakeClock()
    door, work = admission(waiting=3, clock=clock), Work()
    tasks = {name: asyncio.create_task(door.run("Search", work.of(name))) for name in "abcd"}
    await settle()
    work.end("a")
    await settle()
    assert work.begun == ["a", "b"]  # So far it may be a burst.
    clock.advance(0.2)
    work.end("b")
    await settle()
    assert work.begun == ["a", "b", "d"]
    work.end("d")
    await settle()
    work.end("c")
    await asyncio.gather(*tasks.values())
    # The queue was empty since, so the next one is a burst until it has stood for as long.
    tasks = {name: asyncio.create_task(door.run("Search", work.of(name))) for name in "efg"}
    await settle()
    work.end("e")
    await settle()
    assert work.begun[-1] == "f"
    for name in "fg":
        work.end(name)
    await asyncio.gather(*tasks.values())


async def test_what_would_be_refused_need_not_be_read() -> None:
    door, work = admission(), Work()
    assert door.refusal("Search") is None
    tasks = [asyncio.create_task(door.run("Search", work.of("a")))]
    await settle()
    assert door.refusal("Search") is None
    tasks.append(asyncio.create_task(door.run("Search", work.of("b"))))
    await settle()
    before = refused(Refusal.QUEUE_FULL)
    refusal = door.refusal("Search")
    assert refusal is not None
    assert refusal.reason == "QUEUE_FULL"
    assert refused(Refusal.QUEUE_FULL) == before + 1
    for name in "ab":
        work.end(name)
    await asyncio.gather(*tasks)
    assert door.refusal("Search") is None


async def test_without_a_queue_nothing_is_refused_while_there_is_place() -> None:
    door, work = admission(waiting=0), Work()
    assert door.refusal("Search") is None
    task = asyncio.create_task(door.run("Search", work.of("a")))
    await settle()
    assert door.refusal("Search") is not None
    work.end("a")
    await task
    assert door.refusal("Search") is None


async def test_what_nobody_can_wait_for_is_refused_at_once_with_a_reason() -> None:
    door, work = admission(), Work()
    before = refused(Refusal.QUEUE_FULL)
    tasks = [asyncio.create_task(door.run("Search", work.of(name))) for name in "ab"]
    await settle()
    with pytest.raises(OverloadedError) as error:
        await door.run("Search", work.of("c"))
    assert error.value.reason == "QUEUE_FULL"
    assert refused(Refusal.QUEUE_FULL) == before + 1
    assert work.begun == ["a"]
    for name in "ab":
        work.end(name)
    await asyncio.gather(*tasks)


async def test_a_place_that_waits_no_longer_is_another_requests() -> None:
    door, work = admission(patience_s=0.02), Work()
    first = asyncio.create_task(door.run("Search", work.of("a")))
    await settle()
    with pytest.raises(OverloadedError) as error:
        await door.run("Search", work.of("b"))
    assert error.value.reason == "QUEUE_TIMEOUT"
    second = asyncio.create_task(door.run("Search", work.of("c")))
    await settle()
    work.end("a")
    work.end("c")
    assert await asyncio.gather(first, second) == ["a", "c"]
    assert work.begun == ["a", "c"]


async def test_nobody_waits_for_longer_than_a_quarter_of_the_deadline() -> None:
    door, work = admission(remaining_s=lambda: 0.08), Work()
    first = asyncio.create_task(door.run("Search", work.of("a")))
    await settle()
    with pytest.raises(OverloadedError) as error:
        await asyncio.wait_for(door.run("Search", work.of("b")), 1)
    assert error.value.reason == "QUEUE_TIMEOUT"
    work.end("a")
    await first


async def test_a_request_that_is_late_already_does_not_wait() -> None:
    door, work = admission(remaining_s=lambda: -0.1), Work()
    first = asyncio.create_task(door.run("Search", work.of("a")))
    await settle()
    with pytest.raises(DeadlineError):
        await door.run("Search", work.of("b"))
    work.end("a")
    await first
    assert await door.run("Search", no_wait) == ""


@pytest.mark.parametrize("after_its_turn", [False, True])
async def test_a_caller_that_goes_away_holds_no_place(after_its_turn: bool) -> None:
    door, work = admission(waiting=2), Work()
    first, second, third = (asyncio.create_task(door.run("Search", work.of(name))) for name in "abc")
    await settle()
    if after_its_turn:
        work.end("a")
        # The first hands its place over when it next runs; the second is cancelled before it has it.
        while not first.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
    second.cancel()
    work.end("a")
    work.end("c")
    assert await asyncio.wait_for(asyncio.gather(first, third), 1) == ["a", "c"]
    assert "b" not in work.begun
    assert await asyncio.wait_for(door.run("Search", no_wait), 1) == ""


async def test_a_request_that_fails_gives_its_place_back() -> None:
    async def failing() -> None:
        raise OverloadedError("a dependency's own")

    door = admission(waiting=0)
    for _ in range(3):
        with pytest.raises(OverloadedError, match="a dependency's own"):
            await door.run("Search", failing)


async def test_callers_are_sent_back_for_as_long_as_those_before_them_take() -> None:
    clock = FakeClock()
    door, work = admission(clock=clock), Work()

    async def taking_200_ms() -> None:
        clock.advance(0.2)

    await door.run("Search", taking_200_ms)
    tasks = [asyncio.create_task(door.run("Search", work.of(name))) for name in "ab"]
    await settle()
    with pytest.raises(OverloadedError) as error:
        await door.run("Search", work.of("c"))
    assert error.value.retry_after_s == pytest.approx(0.4)
    for name in "ab":
        work.end(name)
    await asyncio.gather(*tasks)


async def test_fewer_are_let_in_where_answers_come_late() -> None:
    clock = FakeClock()
    door, work = admission(running=2, waiting=0, clock=clock), Work()

    async def late() -> None:
        clock.advance(1.5)

    async def down() -> None:
        clock.advance(1.5)
        raise UnavailableError("index")

    with pytest.raises(UnavailableError):
        await door.run("Search", down)
    both = [asyncio.create_task(door.run("Search", work.of(name))) for name in "ab"]
    await settle()
    assert work.begun == ["a", "b"]  # What fails says nothing of how many can be answered.
    for name in "ab":
        work.end(name)
    await asyncio.gather(*both)
    await door.run("Search", late)
    alone = asyncio.create_task(door.run("Search", work.of("c")))
    await settle()
    with pytest.raises(OverloadedError):
        await door.run("Search", no_wait)
    work.end("c")
    await alone


async def let_in(door: Admission, most: int) -> int:
    """How many of `most` requests `door` works on at once."""
    work = Work()
    tasks = [asyncio.create_task(door.run("Search", work.of(str(at)))) for at in range(most)]
    await settle()
    begun = len(work.begun)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return begun


@pytest.mark.parametrize(
    "error",
    [
        OverloadedError("a dependency's own"),
        InvalidArgumentError.of("query", "must not be blank"),
        DeadlineError("too little is left"),
        asyncio.CancelledError(),
    ],
)
async def test_what_fails_fast_lets_in_no_more(error: BaseException) -> None:
    clock = FakeClock()
    door = admission(running=2, waiting=0, clock=clock)

    async def late() -> None:
        clock.advance(1.5)

    async def failing() -> None:
        clock.advance(0.002)
        raise error

    await door.run("Search", late)
    for _ in range(20):
        with pytest.raises(type(error)):
            await door.run("Search", failing)
    assert await let_in(door, 2) == 1
    await door.run("Search", no_wait)
    assert await let_in(door, 2) == 2


@pytest.mark.parametrize(
    ("error", "places"),
    [
        (DeadlineError("no answer in time"), 1),
        (asyncio.CancelledError(), 1),
        (OverloadedError("a dependency's own"), 2),
    ],
)
async def test_callers_that_give_up_late_say_what_a_late_answer_says(error: BaseException, places: int) -> None:
    clock = FakeClock()
    door = admission(running=2, waiting=0, clock=clock)

    async def given_up() -> None:
        clock.advance(1.5)
        raise error

    with pytest.raises(type(error)):
        await door.run("Search", given_up)
    assert await let_in(door, 2) == places
