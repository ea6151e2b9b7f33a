"""Calls that differ in nothing but what they ask for are made as one.

A call of several questions costs the store, and both ends of the connection, little more than a call of one. None waits
for company: a question goes at once while fewer than `under_way` calls of its kind are, and those that come meanwhile
go together once one of these is back. So the busier a service is, the more share a call, as in the engine's batches.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

Call = Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]]
"""Answers questions of one kind, in their order."""


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Question, Answer]):
    question: Question
    weight: int
    call: Call[Question, Answer]
    answer: asyncio.Future[Answer]


@dataclass(slots=True)
class _Kind(Generic[Question, Answer]):
    under_way: int = 0
    waiting: deque[_Waiting[Question, Answer]] = field(default_factory=deque)


class Joining(Generic[Question, Answer]):
    """At most `under_way` calls of a kind at a time, each of questions that weigh at most `most` together, or of one
    that weighs more. Belongs to one event loop."""

    def __init__(self, under_way: int, most: int) -> None:
        self._under_way = under_way
        self._most = most
        self._kinds: dict[Hashable, _Kind[Question, Answer]] = {}
        self._shared: set[asyncio.Task[None]] = set()

    async def ask(self, kind: Hashable, question: Question, weight: int, call: Call[Question, Answer]) -> Answer:
        """What `call`, or that of another of this kind, answers to `question`; raises what it raises.

        Where a shared call fails, each of its questions is asked alone, so that none fails for another. A cancelled
        caller leaves a shared call to the others; one that nobody waits for any more is cancelled.
        """
        alike = self._kinds.setdefault(kind, _Kind())
        if alike.under_way >= self._under_way:
            answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            alike.waiting.append(_Waiting(question, weight, call, answer))
            return await answer
        alike.under_way += 1
        try:
            return (await call([question]))[0]
        finally:
            self._go_on(kind)

    def _go_on(self, kind: Hashable) -> None:
        """A call is back, and the next one of its kind goes."""
        alike = self._kinds[kind]
        together = self._next(alike.waiting)
        if together:
            self._share(kind, together)
            return
        alike.under_way -= 1
        if not alike.under_way:
            del self._kinds[kind]

    def _next(self, waiting: deque[_Waiting[Question, Answer]]) -> list[_Waiting[Question, Answer]]:
        """Those whose turn it is, in the order they came, without those that have gone."""
        together: list[_Waiting[Question, Answer]] = []
        room = self._most
        while waiting and (not together or waiting[0].weight <= room):
            one = waiting.popleft()
            if not one.answer.done():
                together.append(one)
                room -= one.weight
        return together

    def _share(self, kind: Hashable, together: Sequence[_Waiting[Question, Answer]]) -> None:
        # In a context of its own: it has no caller's deadline, nor a place in one's trace.
        task = asyncio.get_running_loop().create_task(_answer(together), context=Context())
        self._shared.add(task)

        def left(_: asyncio.Future[Answer]) -> None:
            if all(one.answer.cancelled() for one in together):
                task.cancel()

        def over(_: asyncio.Task[None]) -> None:
            self._shared.discard(task)
            self._go_on(kind)

        for one in together:
            one.answer.add_done_callback(left)
        task.add_done_callback(over)


async def _answer(together: Sequence[_Waiting[Question, Answer]]) -> None:
    try:
        answers = await together[0].call([one.question for one in together])
    except Exception as error:
        if len(together) > 1:
            await asyncio.gather(*(_answer([one]) for one in together))
        elif not together[0].answer.done():
            together[0].answer.set_exception(error)
        return
    for one, answer in zip(together, answers, strict=True):
        if not one.answer.done():
            one.answer.set_result(answer)
