import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vector_retrieval.joining import Joining


class Store:
    """Answers each number by its double, once told to go on; refuses a call that holds one of `poison`."""

    def __init__(self, *poison: int) -> None:
        self.calls: list[list[int]] = []
        self.cancelled: list[list[int]] = []
        self.at_once = self.most_at_once = 0
        self.go_on = asyncio.Event()
        self._poison = set(poison)

    async def __call__(self, questions: Sequence[int]) -> list[int]:
        self.calls.append(list(questions))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.go_on.wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.append(list(questions))
            raise
        finally:
            self.at_once -= 1
        if self._poison & set(questions):
            raise ValueError(f"one of {questions}")
        return [2 * question for question in questions]


async def asked(
    joining: Joining[int, int], store: Store, *questions: int, kind: str = "", weight: int = 1
) -> list[asyncio.Task[int]]:
    """Callers that have asked, and wait."""
    tasks = [asyncio.create_task(joining.ask(kind, question, weight, store)) for question in questions]
    await asyncio.sleep(0)
    return tasks


async def turns(count: int) -> None:
    """Of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_comes_meanwhile_goes_together() -> None:
    joining, store = Joining[int, int](under_way=2, most=64), Store()
    tasks = await asked(joining, store, 1, 2, 3, 4, 5)
    assert store.calls == [[1], [2]]
    store.go_on.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert store.calls == [[1], [2], [3, 4, 5]]
    assert store.most_at_once == 2


async def test_one_after_another_each_goes_alone() -> None:
    joining, store = Joining[int, int](under_way=1, most=64), Store()
    store.go_on.set()
    assert [await joining.ask("", question, 1, store) for question in (1, 2, 3)] == [2, 4, 6]
    assert store.calls == [[1], [2], [3]]


async def test_kinds_neither_share_nor_wait() -> None:
    joining, store = Joining[int, int](under_way=1, most=64), Store()
    tasks = [task for kind in "abc" for task in await asked(joining, store, 1, 2, kind=kind)]
    assert store.calls == [[1], [1], [1]]
    store.go_on.set()
    assert await asyncio.gather(*tasks) == [2, 4] * 3
    assert store.calls == [[1]] * 3 + [[2]] * 3


async def test_a_call_is_bounded_by_weight_and_one_that_weighs_more_goes_alone() -> None:
    joining, store = Joining[int, int](under_way=1, most=5), Store()
    tasks = await asked(joining, store, 0, 1, 2, 3, weight=2)
    tasks += await asked(joining, store, 9, weight=7)
    tasks += await asked(joining, store, 4, weight=2)
    store.go_on.set()
    await asyncio.gather(*tasks)
    assert store.calls == [[0], [1, 2], [3], [9], [4]]


async def test_a_question_that_fails_fails_alone() -> None:
    joining, store = Joining[int, int](under_way=1, most=64), Store(3)
    tasks = await asked(joining, store, 1, 2, 3, 4)
    store.go_on.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["2", "4", "one of [3]", "8"]
    assert store.calls == [[1], [2, 3, 4], [2], [3], [4]]


async def test_who_has_gone_is_not_asked_for() -> None:
    joining, store = Joining[int, int](under_way=1, most=64), Store()
    first, second, third = await asked(joining, store, 1, 2, 3)
    second.cancel()
    await turns(50)
    store.go_on.set()
    assert [await first, await third] == [2, 6]
    assert store.calls == [[1], [3]]


async def test_who_goes_leaves_a_shared_call_to_the_others_and_the_last_ends_it() -> None:
    joining, store = Joining[int, int](under_way=1, most=64), Store()
    first, second, third = await asked(joining, store, 1, 2, 3)
    first.cancel()
    await turns(50)
    assert store.calls == [[1], [2, 3]]
    second.cancel()
    await turns(50)
    assert store.cancelled == [[1]]
    third.cancel()
    await turns(50)
    assert store.cancelled == [[1], [2, 3]]
    # The way is free again.
    store.go_on.set()
    assert await joining.ask("", 4, 1, store) == 8


@dataclass(frozen=True)
class Caller:
    kind: int
    weight: int
    pause: int
    """Turns of the event loop until the next one comes."""
    goes: bool


@given(
    callers=st.lists(
        st.builds(Caller, st.integers(0, 2), st.integers(1, 4), st.integers(0, 8), st.booleans()),
        min_size=1,
        max_size=40,
    ),
    under_way=st.integers(1, 3),
    poison=st.integers(0, 60),
)
async def test_everyone_has_their_own_answer_and_nothing_is_left(
    callers: list[Caller], under_way: int, poison: int
) -> None:
    joining = Joining[int, int](under_way, most=6)
    stores = [Store(poison) for _ in range(3)]
    tasks: list[asyncio.Task[int]] = []
    for number, caller in enumerate(callers):
        tasks += await asked(joining, stores[caller.kind], number, kind=str(caller.kind), weight=caller.weight)
        await turns(caller.pause)
        (stores[0].go_on.set if caller.pause % 2 else stores[0].go_on.clear)()
    for task, caller in zip(tasks, callers, strict=True):
        if caller.goes:
            task.cancel()
    for store in stores:
        store.go_on.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await turns(50)
    for number, (outcome, caller) in enumerate(zip(outcomes, callers, strict=True)):
        assert outcome == 2 * number or caller.goes or number == poison
    # Where a shared call failed, its questions are asked alone, side by side.
    assert poison < len(callers) or all(store.most_at_once <= under_way for store in stores)
    assert not joining._kinds
    assert not joining._shared


@pytest.mark.parametrize("under_way", [1, 4])
async def test_a_shared_call_knows_no_caller(under_way: int) -> None:
    """Neither one's deadline nor their trace: it is everyone's."""
    whose: ContextVar[str] = ContextVar("whose", default="nobody")
    joining, seen = Joining[int, int](under_way, most=64), []

    async def call(questions: Sequence[int]) -> Sequence[int]:
        seen.append((len(questions), whose.get()))
        await asyncio.sleep(0)
        return questions

    async def caller(number: int) -> int:
        whose.set(f"caller {number}")
        return await joining.ask("", number, 1, call)

    assert await asyncio.gather(*(caller(n) for n in range(under_way + 3))) == list(range(under_way + 3))
    assert seen == [*((1, f"caller {n}") for n in range(under_way)), (3, "nobody")]
