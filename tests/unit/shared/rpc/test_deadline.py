"""What ends a block: the caller's deadline, or a limit of its own."""

import asyncio
import time
from collections.abc import Iterator

import pytest
import uvloop

from shared.errors import DeadlineError
from shared.rpc import context, deadline


@pytest.fixture(autouse=True)
def outside_a_call() -> Iterator[None]:
    yield
    context.set_deadline(None)


async def forever() -> None:
    await asyncio.Event().wait()


def test_the_deadline_is_told_apart_from_a_limit_whose_timer_is_early() -> None:
    async def run_out(seconds: float) -> None:
        context.set_deadline(time.monotonic() + seconds)
        with pytest.raises(DeadlineError):
            async with deadline.within(60):
                await forever()

    async def often() -> None:
        # Fractions of a millisecond, of which uvloop's timers cut off some.
        for fraction in range(50):
            await run_out(0.01 + fraction * 0.00003)

    uvloop.run(often())


@pytest.mark.parametrize("left_s", [None, 60.0])
async def test_a_limit_that_ends_before_the_deadline_is_the_blocks_own(left_s: float | None) -> None:
    context.set_deadline(None if left_s is None else time.monotonic() + left_s)
    with pytest.raises(TimeoutError):
        async with deadline.within(0.01):
            await forever()


async def test_a_time_out_of_something_inside_is_not_the_deadlines() -> None:
    context.set_deadline(time.monotonic() + 30)
    with pytest.raises(TimeoutError):
        async with deadline.within(60):
            raise TimeoutError


async def test_nothing_is_begun_once_the_deadline_is_over() -> None:
    context.set_deadline(time.monotonic())
    begun = False
    with pytest.raises(DeadlineError):
        async with deadline.within(60):
            begun = True
    assert not begun
