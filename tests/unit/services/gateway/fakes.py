"""In-process ports and clocks that do what a test tells them to."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.gateway.budgets import StageBudget
from services.gateway.catalog import ItemRow
from services.gateway.ports import (
    Candidate,
    EncodedItems,
    EncodedText,
    EncodedUsers,
    Found,
    Mode,
    Priority,
    Reranked,
    RowError,
    Stored,
    StoredItems,
    UserAction,
    UserModel,
    Vectors,
)
from services.gateway.search import SearchPolicy
from shared.errors import FieldViolation


class FakeClock:
    """Seconds that pass when told to."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def vectors(rows: int = 1, version: str = "v1") -> Vectors:
    """`rows` vectors of one byte-sized marker each: row i is four bytes of value i."""
    return Vectors(b"".join(bytes([row % 256]) * 4 for row in range(rows)), rows, 1, 1, version)


def candidates(count: int, top: float = 1.0) -> list[Candidate]:
    return [
        Candidate(f"id-{at}", f"item-{at}", top - at * 0.01, dense_score=0.5, dense_rank=at + 1) for at in range(count)
    ]


def row(identity: str = "a", *, size: int = 10, payload: object = None, broken: str = "") -> ItemRow:
    problems = (FieldViolation(broken, "is wrong"),) if broken else ()
    return ItemRow(identity, payload if payload is not None else f"item {identity}", size, problems)


class Scripted:
    """Outcomes in turn: exceptions are raised, callables called, all else returned; the last one repeats."""

    def __init__(self, *outcomes: Any) -> None:
        self._outcomes = deque(outcomes)

    async def next(self) -> Any:
        outcome = self._outcomes.popleft() if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return await outcome() if callable(outcome) else outcome


async def hang() -> None:
    await asyncio.Event().wait()


@dataclass
class FakeQueryEncoder:
    outcome: Any = field(default_factory=vectors)
    users: Any = field(default_factory=lambda: EncodedUsers(vectors(), UserModel.WEIGHTED_MEAN))
    calls: list[dict[str, Any]] = field(default_factory=list)
    user_calls: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.script = Scripted(self.outcome)
        self.user_script = Scripted(self.users)

    async def encode(self, text: str, *, with_tokens: bool = False, timeout_s: float) -> EncodedText:
        self.calls.append({"text": text, "with_tokens": with_tokens, "timeout_s": timeout_s})
        return EncodedText(await self.script.next(), f"tokens of {text}" if with_tokens else None)

    async def encode_users(
        self,
        histories: Sequence[Sequence[UserAction]],
        item_vectors: Vectors | None,
        model: UserModel | None = None,
        *,
        timeout_s: float,
    ) -> EncodedUsers:
        self.user_calls.append(
            {"histories": histories, "item_vectors": item_vectors, "model": model, "timeout_s": timeout_s}
        )
        return await self.user_script.next()


@dataclass
class FakeRetrieval:
    """Finds `found`, shows `browsed`, holds `stored` and `many`, and refuses `refusals` of each upsert."""

    found: Any = field(default_factory=lambda: Found(candidates(40), "g1", "v1"))
    browsed: Any = field(default_factory=lambda: Found(candidates(40), "g1", "v1"))
    stored: Any = None
    many: Any = field(default_factory=lambda: StoredItems([]))
    upserts: Any = ()
    deleted: Any = 0
    searches: list[dict[str, Any]] = field(default_factory=list)
    browses: list[dict[str, Any]] = field(default_factory=list)
    lookups: list[dict[str, Any]] = field(default_factory=list)
    many_lookups: list[dict[str, Any]] = field(default_factory=list)
    written: list[list[object]] = field(default_factory=list)
    written_vectors: list[Vectors] = field(default_factory=list)
    deletes: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.search_script = Scripted(self.found)
        self.browse_script = Scripted(self.browsed)
        self.get_script = Scripted(self.stored)
        self.many_script = Scripted(self.many)
        self.upsert_script = Scripted(self.upserts)
        self.delete_script = Scripted(self.deleted)

    async def search(
        self,
        *,
        vector: Vectors | None,
        text: str | None,
        mode: Mode,
        filter_: object | None,
        limit: int,
        exclude: Sequence[str] = (),
        outside_groups: Collection[str] = (),
        with_vectors: bool = False,
        timeout_s: float,
    ) -> Found:
        self.searches.append(
            {
                "vector": vector,
                "text": text,
                "mode": mode,
                "filter": filter_,
                "limit": limit,
                "exclude": exclude,
                "outside_groups": outside_groups,
                "with_vectors": with_vectors,
                "timeout_s": timeout_s,
            }
        )
        return await self.search_script.next()

    async def browse(
        self,
        *,
        filter_: object | None,
        ids: Sequence[str] = (),
        limit: int,
        exclude: Sequence[str] = (),
        with_vectors: bool = False,
        timeout_s: float,
    ) -> Found:
        self.browses.append(
            {
                "filter": filter_,
                "ids": list(ids),
                "limit": limit,
                "exclude": exclude,
                "with_vectors": with_vectors,
                "timeout_s": timeout_s,
            }
        )
        return await self.browse_script.next()

    async def get(self, item_id: str, *, with_vector: bool, timeout_s: float) -> Stored | None:
        self.lookups.append({"id": item_id, "with_vector": with_vector, "timeout_s": timeout_s})
        return await self.get_script.next()

    async def get_many(self, ids: Sequence[str], *, with_vectors: bool, timeout_s: float) -> StoredItems:
        self.many_lookups.append({"ids": list(ids), "with_vectors": with_vectors, "timeout_s": timeout_s})
        return await self.many_script.next()

    async def upsert(self, items: Sequence[object], vectors: Vectors, *, timeout_s: float) -> Sequence[RowError]:
        refused = await self.upsert_script.next()
        self.written.append(list(items))
        self.written_vectors.append(vectors)
        return refused

    async def delete(self, ids: Sequence[str], *, timeout_s: float) -> int:
        self.deletes.append(list(ids))
        return await self.delete_script.next()


@dataclass
class FakeReranker:
    """Scores the items given by `score_of` their position unless `outcome` says otherwise."""

    outcome: Any = None
    score_of: Callable[[int], float | None] = float
    kind: str = "late-interaction"
    reads_tokens: bool = False
    calls: list[dict[str, Any]] = field(default_factory=list)

    async def rerank(self, query: str, items: Sequence[object], tokens: object = None, *, timeout_s: float) -> Reranked:
        self.calls.append({"query": query, "items": list(items), "tokens": tokens, "timeout_s": timeout_s})
        if self.outcome is not None:
            return await Scripted(self.outcome).next()
        return Reranked([self.score_of(at) for at in range(len(items))], "r1", self.kind)


@dataclass
class FakeItemEncoder:
    """Encodes everything; `before` runs at the start of each call and may raise or wait."""

    before: Callable[[Sequence[object]], Awaitable[None]] | None = None
    errors: Callable[[Sequence[object]], Sequence[RowError]] = lambda items: ()
    calls: list[list[object]] = field(default_factory=list)
    priorities: list[Priority] = field(default_factory=list)
    running: int = 0
    most_running: int = 0

    async def encode(self, items: Sequence[object], priority: Priority, *, timeout_s: float) -> EncodedItems:
        self.calls.append(list(items))
        self.priorities.append(priority)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.before is not None:
                await self.before(items)
            return EncodedItems(vectors(len(items)), self.errors(items))
        finally:
            self.running -= 1


def policy(**changes: Any) -> SearchPolicy:
    defaults: dict[str, Any] = {
        "candidate_count": 40,
        "rerank_count": 8,
        "rerank_weights": {"late-interaction": 1.0, "cross-encoder": 0.0},
        "default_rerank_weight": 1.0,
        "encode": StageBudget(0.5, 0.25),
        "retrieve": StageBudget(3.0, 0.7),
        "rerank": StageBudget(1.0, 0.9, 0.05),
        "history": StageBudget(0.25),
        "personalization_weight": 0.5,
    }
    return SearchPolicy(**{**defaults, **changes})
