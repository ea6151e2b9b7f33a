import asyncio
from collections.abc import Sequence

import pytest

from services.user_events.events import Event, EventType
from services.user_events.failures import LostConnectionError, RowsRefusedError
from services.user_events.writer import GroupCommit, Outcome
from shared.errors import OverloadedError, UnavailableError


class Shown:
    def __init__(self) -> None:
        self.values: list[float] = []

    def set(self, value: float) -> None:
        self.values.append(value)


class Journal:
    """Keeps ids; refuses what is called `poison`, and breaks when told to."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.groups: list[int] = []
        self.failures: list[Exception] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def append(self, events: Sequence[Event]) -> Sequence[bool]:
        await self.may_go_on.wait()
        self.groups.append(len(events))
        if self.failures:
            raise self.failures.pop(0)
        if any(event.id.startswith("poison") for event in events):
            raise RowsRefusedError
        new = []
        for event in events:
            new.append(event.id not in self.kept)
            if new[-1]:
                self.kept.append(event.id)
        return new


def events(*ids: str) -> list[Event]:
    return [Event(id=i, type=EventType.VIEW, user_key=None, session_key=b"", occurred_at=0, arrived_at=0) for i in ids]


def writer(journal: Journal, buffer: int = 100, commit: int = 10) -> GroupCommit:
    made = GroupCommit(journal.append, buffer, commit, Shown())
    made.start()
    return made


async def waiting(made: GroupCommit, *groups: Sequence[str]) -> list[asyncio.Task[list[Outcome]]]:
    """Calls that wait: each has got as far as it can before the next."""
    tasks = []
    for group in groups:
        tasks.append(asyncio.create_task(made.write(events(*group))))
        for _ in range(3):
            await asyncio.sleep(0)
    return tasks


async def test_what_comes_in_while_a_transaction_runs_is_the_next_one() -> None:
    journal = Journal()
    made = writer(journal)
    journal.may_go_on.clear()
    first = await waiting(made, ["a"])
    rest = await waiting(made, ["b", "c"], ["d"], ["e", "f", "g"])
    journal.may_go_on.set()
    assert await asyncio.gather(*first, *rest) == [[Outcome.STORED] * n for n in (1, 2, 1, 3)]
    assert journal.groups == [1, 6]
    await made.close()


async def test_a_transaction_takes_whole_requests_up_to_its_size() -> None:
    journal = Journal()
    made = writer(journal, commit=4)
    journal.may_go_on.clear()
    tasks = await waiting(made, ["x"], ["a", "b"], ["c", "d", "e"], ["f"], [*"ghijklm"])
    journal.may_go_on.set()
    await asyncio.gather(*tasks)
    assert journal.groups == [1, 2, 4, 7]
    await made.close()


async def test_only_the_poison_is_refused() -> None:
    journal = Journal()
    made = writer(journal)
    journal.may_go_on.clear()
    tasks = await waiting(made, ["z"], ["a", "poison", "b"], ["c"], ["poison2", "poison3"], ["a"])
    journal.may_go_on.set()
    stored, refused, duplicate = Outcome.STORED, Outcome.REFUSED, Outcome.DUPLICATE
    assert await asyncio.gather(*tasks) == [[stored], [stored, refused, stored], [stored], [refused] * 2, [duplicate]]
    assert journal.kept == ["z", "a", "b", "c"]
    await made.close()


async def test_a_connection_that_broke_is_tried_once_more() -> None:
    journal = Journal()
    made = writer(journal)
    journal.failures = [LostConnectionError()]
    assert await made.write(events("a")) == [Outcome.STORED]
    journal.failures = [LostConnectionError(), LostConnectionError()]
    with pytest.raises(UnavailableError):
        await made.write(events("b"))
    assert await made.write(events("c")) == [Outcome.STORED]
    assert journal.kept == ["a", "c"]
    await made.close()


async def test_a_bug_reaches_its_callers_and_nobody_after_them() -> None:
    journal = Journal()
    made = writer(journal)
    journal.may_go_on.clear()
    tasks = await waiting(made, ["a"], ["b"])
    journal.failures = [ZeroDivisionError()]
    journal.may_go_on.set()
    with pytest.raises(ZeroDivisionError):
        await tasks[0]
    assert await tasks[1] == [Outcome.STORED]
    await made.close()


async def test_the_buffer_is_bounded_and_one_request_always_fits() -> None:
    journal = Journal()
    made = writer(journal, buffer=3, commit=3)
    journal.may_go_on.clear()
    tasks = await waiting(made, ["a"], ["b", "c"])
    with pytest.raises(OverloadedError, match="2 events wait"):
        await made.write(events("d", "e"))
    journal.may_go_on.set()
    await asyncio.gather(*tasks)
    assert await made.write(events(*"12345")) == [Outcome.STORED] * 5
    await made.close()


async def test_who_has_left_is_not_written() -> None:
    journal = Journal()
    made = writer(journal)
    journal.may_go_on.clear()
    stays, leaves = await waiting(made, ["a"], ["b"])
    leaves.cancel()
    await asyncio.sleep(0)
    journal.may_go_on.set()
    await stays
    await made.write(events("c"))
    assert journal.kept == ["a", "c"]
    await made.close()


async def test_what_waits_is_written_at_the_end() -> None:
    journal = Journal()
    made = writer(journal)
    tasks = await waiting(made, ["a"], ["b"])
    await made.close()
    assert await asyncio.gather(*tasks) == [[Outcome.STORED]] * 2
