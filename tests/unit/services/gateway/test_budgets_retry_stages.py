import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.budgets import StageBudget
from services.gateway.retry import Patience
from services.gateway.stages import Stages
from shared.errors import AisleError, DeadlineError, InternalError, OverloadedError, UnavailableError
from tests.unit.services.gateway.fakes import FakeClock, Scripted


def test_without_a_deadline_the_cap_counts() -> None:
    assert StageBudget(0.5, 0.25).timeout_s(None) == 0.5


@given(st.floats(0.001, 100), st.floats(0.01, 1), st.floats(0, 1), st.floats(-10, 100))
def test_a_budget_keeps_every_bound_or_refuses(cap: float, share: float, reserve: float, remaining: float) -> None:
    budget = StageBudget(cap, share, reserve)
    try:
        timeout = budget.timeout_s(remaining)
    except DeadlineError:
        assert remaining - reserve <= 0 or remaining * share <= 0
    else:
        assert 0 < timeout <= cap
        assert timeout <= remaining * share
        assert timeout <= remaining - reserve


def patience(clock: FakeClock, total_s: float = 10.0) -> Patience:
    return Patience(total_s, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0)


async def test_retries_until_it_works() -> None:
    clock = FakeClock(0)
    script = Scripted(UnavailableError("x", retry_after_s=0), OverloadedError("x", retry_after_s=0), "ok")
    assert await patience(clock).run(script.next, lambda: None) == "ok"
    assert clock.now == pytest.approx(0.1 + 0.2)


async def test_does_not_come_back_before_it_was_told_to() -> None:
    clock = FakeClock(0)
    script = Scripted(OverloadedError("full", retry_after_s=3.0), "ok")
    assert await patience(clock).run(script.next, lambda: None) == "ok"
    assert clock.now == pytest.approx(3.0)


@pytest.mark.parametrize(
    "error", [UnavailableError("x"), OverloadedError("full", retry_after_s=0.1), DeadlineError("late")]
)
async def test_gives_up_with_the_last_error_when_patience_ends(error: AisleError) -> None:
    clock = FakeClock(0)
    with pytest.raises(type(error)):
        await patience(clock).run(Scripted(error).next, lambda: None)
    assert 7 < clock.now <= 10


async def test_gives_up_rather_than_sleep_through_the_deadline() -> None:
    clock = FakeClock(0)
    with pytest.raises(UnavailableError):
        await patience(clock).run(Scripted(UnavailableError("x")).next, lambda: 2.0 - clock.now)
    assert clock.now < 2


async def test_other_errors_are_not_retried() -> None:
    clock = FakeClock(0)
    with pytest.raises(InternalError):
        await patience(clock).run(Scripted(InternalError("bug"), "ok").next, lambda: None)
    assert clock.now == 0


def test_stages_in_the_order_they_began_and_the_total_last() -> None:
    clock = FakeClock(0)
    stages = Stages(clock)
    with stages.stage("outer"):
        clock.advance(0.010)
        with stages.stage("inner"):
            clock.advance(0.005)
    clock.advance(0.001)
    assert [(t.stage, round(t.milliseconds, 6)) for t in stages.timings()] == [
        ("outer", 15),
        ("inner", 5),
        ("total", 16),
    ]


def test_a_stage_that_fails_is_timed_too() -> None:
    clock = FakeClock(0)
    stages = Stages(clock)

    def fail() -> None:
        with stages.stage("encode"):
            clock.advance(1)
            raise UnavailableError("x")

    with pytest.raises(UnavailableError):
        fail()
    assert stages.timings()[0] == ("encode", 1000)
