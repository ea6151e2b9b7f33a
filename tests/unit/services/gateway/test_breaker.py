import asyncio

import pytest

from services.gateway.breaker import Breaker, Guard, State
from shared.errors import DeadlineError, InternalError, OverloadedError, UnavailableError
from tests.unit.services.gateway.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    return Breaker(failures=3, open_s=1.0, clock=clock)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        ticket = breaker.enter()
        assert ticket is not None
        breaker.failed(ticket)


def test_starts_closed_and_lets_calls_pass(breaker: Breaker) -> None:
    assert breaker.state is State.CLOSED
    assert breaker.enter() is not None


def test_opens_after_the_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert breaker.state is State.CLOSED
    fail(breaker)
    assert breaker.state is State.OPEN
    assert breaker.enter() is None


def test_a_success_in_between_starts_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeeded(breaker.enter() or 0)
    fail(breaker, 2)
    assert breaker.state is State.CLOSED


def test_one_probe_is_let_through_when_it_has_been_open_long_enough(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 3)
    clock.advance(0.999)
    assert breaker.enter() is None
    clock.advance(0.001)
    assert breaker.enter() is not None
    assert breaker.state is State.HALF_OPEN
    assert breaker.enter() is None


def test_a_good_probe_closes_it(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 3)
    clock.advance(1)
    breaker.succeeded(breaker.enter() or 0)
    assert breaker.state is State.CLOSED
    fail(breaker, 2)
    assert breaker.state is State.CLOSED


def test_a_bad_probe_opens_it_for_as_long_again(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 3)
    clock.advance(1)
    fail(breaker)
    assert breaker.state is State.OPEN
    clock.advance(0.9)
    assert breaker.enter() is None
    assert breaker.retry_after_s() == pytest.approx(0.1)


def test_an_abandoned_probe_makes_room_for_the_next(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 3)
    clock.advance(1)
    breaker.abandoned(breaker.enter() or 0)
    assert breaker.enter() is not None
    assert breaker.state is State.HALF_OPEN


def test_late_news_from_before_it_opened_changes_nothing(breaker: Breaker, clock: FakeClock) -> None:
    early = [breaker.enter() for _ in range(3)]
    fail(breaker, 3)
    clock.advance(1)
    probe = breaker.enter()
    for ticket, tell in zip(early, (breaker.succeeded, breaker.failed, breaker.abandoned), strict=True):
        assert ticket is not None
        tell(ticket)
        assert breaker.state is State.HALF_OPEN
        assert breaker.enter() is None
    breaker.succeeded(probe or 0)
    assert breaker.state is State.CLOSED


def test_says_when_to_come_back(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 3)
    clock.advance(0.25)
    assert breaker.retry_after_s() == pytest.approx(0.75)
    clock.advance(10)
    assert breaker.retry_after_s() > 0


@pytest.fixture
def guard(breaker: Breaker, clock: FakeClock) -> Guard:
    return Guard("reranker", breaker, patience_s=0.1, clock=clock)


async def run(guard: Guard, outcome: object, takes_s: float = 0.0) -> object:
    async def call() -> object:
        guard._clock.advance(takes_s)  # type: ignore[attr-defined]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return await guard.run(call)


async def test_guard_passes_results_on(guard: Guard) -> None:
    assert await run(guard, "ok") == "ok"


async def test_guard_fails_fast_once_open(guard: Guard, clock: FakeClock) -> None:
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await run(guard, UnavailableError("reranker"))
    with pytest.raises(UnavailableError, match="time to recover") as refused:
        await run(guard, AssertionError("must not be called"))
    assert refused.value.dependency == "reranker"
    assert refused.value.retry_after_s == pytest.approx(1.0)
    clock.advance(1)
    assert await run(guard, "back") == "back"
    assert guard.breaker.state is State.CLOSED


async def test_a_hang_is_unavailable_and_counts(guard: Guard) -> None:
    for _ in range(3):
        with pytest.raises(UnavailableError, match=r"did not answer within 0\.5 s"):
            await run(guard, DeadlineError("late"), takes_s=0.5)
    assert guard.breaker.state is State.OPEN


async def test_a_deadline_too_short_for_anything_speaks_for_nobody(guard: Guard) -> None:
    for _ in range(10):
        with pytest.raises(DeadlineError):
            await run(guard, DeadlineError("late"), takes_s=0.01)
    assert guard.breaker.state is State.CLOSED


@pytest.mark.parametrize("error", [OverloadedError("full"), InternalError("bug")])
async def test_a_refusal_is_an_answer(guard: Guard, error: Exception) -> None:
    for _ in range(10):
        with pytest.raises(type(error)):
            await run(guard, error)
    assert guard.breaker.state is State.CLOSED


async def test_a_cancelled_probe_does_not_keep_the_breaker_open(guard: Guard, clock: FakeClock) -> None:
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await run(guard, UnavailableError("reranker"))
    clock.advance(1)
    probing = asyncio.create_task(guard.run(asyncio.Event().wait))
    await asyncio.sleep(0)
    assert guard.breaker.state is State.HALF_OPEN
    probing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probing
    assert await run(guard, "back") == "back"


async def test_one_hitch_that_fails_many_calls_counts_once(guard: Guard, breaker: Breaker, clock: FakeClock) -> None:
    gate = asyncio.Event()

    async def hitch() -> None:
        await gate.wait()
        raise DeadlineError("too slow")

    async def together(count: int) -> None:
        gate.clear()
        calls = [asyncio.ensure_future(guard.run(hitch)) for _ in range(count)]
        await asyncio.sleep(0)
        clock.advance(0.2)
        gate.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, UnavailableError | DeadlineError) for result in results)

    await together(20)
    await together(20)
    assert breaker.state is State.CLOSED
    assert await run(guard, "ok") == "ok"
    # But one that lasts opens it.
    for _ in range(3):
        await together(20)
    assert breaker.state is State.OPEN
