"""The order of work: two classes, one token budget, lengths kept together.

A plain data structure: no lock, no clock, no thread. The batcher gives it the time and guards it.

- INTERACTIVE goes before BULK. While both wait, BULK earns credit from every interactive token served and gets a
  batch of its own when it can pay for its oldest row: at least `bulk_share` of the tokens, so it never starves.
- A batch is built around the oldest row of its class, from the rows most like it in length: rows wait at most
  as many batches as there are older rows, and hardly any padding is run. Among rows alike in length, those older than
  the class's age bound go before those that are more alike. An old row of another length leads a batch of its own soon:
  under a backlog every row is old, and mixing lengths then would run padding just when there is no time for it.
- Rows past their deadline are handed back, never put in a batch.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

SEARCHED = 512
"""How many of the oldest rows a batch is chosen from; bounds the cost of choosing."""
ALIKE = 16
"""Lengths this close (tokens) always go together: a batch has a cost of its own."""


class Priority(StrEnum):
    """Who waits: a shopper, or a job."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the queue and of a batch. The defaults are for a CPU of a few cores."""

    rows: int = 1024
    """Interactive rows that may wait; those of long texts count while they are tokenised (`reserve`)."""
    bulk_rows: int = 4096
    """The same for bulk rows."""
    batch_rows: int = 128
    """Rows of a batch, at most."""
    batch_tokens: int = 1024
    """Rows x longest row of a batch, at most; a longer single row goes alone. On this code's CPU kernels the time
    per token is flat from about 200 tokens on, so more only adds latency; a GPU wants 16,384 or more."""
    padding: float = 0.5
    """How much shorter than the longest row of its batch a row may be, as a share of the longest."""
    max_age_s: float = 0.1
    """Interactive rows that have waited longer go oldest first among those alike in length."""
    bulk_max_age_s: float = 5.0
    """The same for bulk rows."""
    bulk_share: float = 0.1
    """Least share of the tokens that bulk gets while both classes wait. 0 < share < 1."""

    def __post_init__(self) -> None:
        for name in ("rows", "bulk_rows", "batch_rows", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.bulk_share < 1:
            raise ValueError(f"bulk_share must be between 0 and 1, got {self.bulk_share}")


@dataclass(slots=True, eq=False, kw_only=True)
class Work:
    """One row that waits. Identity is equality."""

    size: int
    """Tokens."""
    priority: Priority
    queued_at: float
    """Seconds on the batcher's clock."""
    deadline: float = math.inf
    """Same clock."""


W = TypeVar("W", bound=Work)


class Taken(NamedTuple, Generic[W]):
    """What one `take` removed from the queue."""

    batch: Sequence[W]
    """To be run together; empty only if nothing could be."""
    expired: Sequence[W]
    """Not to be run at all."""


class _Lane(Generic[W]):
    """The rows of one class, oldest first; removal of any is O(1)."""

    def __init__(self, limit: int, max_age_s: float) -> None:
        self.limit = limit
        self.max_age_s = max_age_s
        self.waiting: dict[W, None] = {}
        self.tokens = 0
        self.reserved = 0

    def fits(self, rows: int) -> bool:
        taken = len(self.waiting) + self.reserved
        return not taken or taken + rows <= self.limit

    def add(self, work: W) -> None:
        self.waiting[work] = None
        self.tokens += work.size

    def remove(self, work: W) -> None:
        del self.waiting[work]
        self.tokens -= work.size


class WorkQueue(Generic[W]):
    """See the module."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lanes: dict[Priority, _Lane[W]] = {
            Priority.INTERACTIVE: _Lane(limits.rows, limits.max_age_s),
            Priority.BULK: _Lane(limits.bulk_rows, limits.bulk_max_age_s),
        }
        self._bulk_credit = 0.0
        # Interactive tokens served → tokens that bulk may spend.
        self._credit_rate = limits.bulk_share / (1 - limits.bulk_share)

    def __len__(self) -> int:
        return sum(len(lane.waiting) for lane in self._lanes.values())

    def rows(self, priority: Priority) -> int:
        """Rows waiting in one class."""
        return len(self._lanes[priority].waiting)

    def reserved(self, priority: Priority) -> int:
        """Rows of one class that room is kept for."""
        return self._lanes[priority].reserved

    def tokens(self, priority: Priority) -> int:
        """Tokens that would be served before a new row of this class, nearly."""
        ahead = self._lanes[Priority.INTERACTIVE].tokens
        return ahead + (self._lanes[Priority.BULK].tokens if priority is Priority.BULK else 0)

    def oldest_at(self) -> float | None:
        """When the oldest row of all came in; None when nothing waits."""
        firsts = (next(iter(lane.waiting), None) for lane in self._lanes.values())
        return min((work.queued_at for work in firsts if work is not None), default=None)

    def offer(self, works: Sequence[W]) -> bool:
        """Take in all of `works` (one class), or none: False when they do not fit.

        More rows than the class's whole limit are let in when nothing of the class waits or has room kept for it;
        otherwise such a request could never be served.
        """
        lane = self._lanes[works[0].priority]
        if not lane.fits(len(works)):
            return False
        for work in works:
            lane.add(work)
        return True

    def reserve(self, priority: Priority, rows: int) -> bool:
        """Keep room for `rows` that are not made yet; False where `offer` would not take them in.

        Once they are released, `offer` takes them in, whatever came in between.
        """
        lane = self._lanes[priority]
        if not lane.fits(rows):
            return False
        lane.reserved += rows
        return True

    def release(self, priority: Priority, rows: int) -> None:
        """Give back what `reserve` kept."""
        self._lanes[priority].reserved -= rows

    def withdraw(self, works: Iterable[W]) -> int:
        """Remove those of `works` that still wait; returns how many did."""
        removed = 0
        for work in works:
            lane = self._lanes[work.priority]
            if work in lane.waiting:
                lane.remove(work)
                removed += 1
        return removed

    def take(self, now: float, *, least_s: float = 0.0, bulk_tokens: int | None = None) -> Taken[W]:
        """The next batch.

        `least_s`: what a forward pass takes at the very least; a row whose deadline is nearer counts as expired.
        `bulk_tokens`: a smaller token budget for a bulk batch, while interactive callers may be about to arrive.
        """
        expired: list[W] = []
        while lane := self._next_lane():
            window = self._unexpired(lane, now + least_s, expired)
            if not window:
                continue
            budget = self._limits.batch_tokens
            if lane is self._lanes[Priority.BULK] and bulk_tokens is not None:
                budget = min(budget, bulk_tokens)
            batch = self._choose(window, now - lane.max_age_s, budget)
            for work in batch:
                lane.remove(work)
            self._account(lane, sum(work.size for work in batch))
            return Taken(batch, expired)
        return Taken([], expired)

    def _next_lane(self) -> _Lane[W] | None:
        interactive, bulk = self._lanes[Priority.INTERACTIVE], self._lanes[Priority.BULK]
        if interactive.waiting and bulk.waiting:
            return bulk if self._bulk_credit >= next(iter(bulk.waiting)).size else interactive
        return interactive if interactive.waiting else bulk if bulk.waiting else None

    def _account(self, lane: _Lane[W], tokens: int) -> None:
        interactive, bulk = self._lanes[Priority.INTERACTIVE], self._lanes[Priority.BULK]
        if not (interactive.waiting if lane is bulk else bulk.waiting):
            # Credit is for waiting, debt for making wait: a class alone neither saves up nor owes.
            self._bulk_credit = 0.0
        elif lane is interactive:
            self._bulk_credit += tokens * self._credit_rate
        else:
            self._bulk_credit -= tokens

    @staticmethod
    def _unexpired(lane: _Lane[W], soonest_end: float, expired: list[W]) -> list[W]:
        window = list(islice(lane.waiting, SEARCHED))
        late = [work for work in window if work.deadline <= soonest_end]
        if not late:
            return window
        for work in late:
            lane.remove(work)
        expired += late
        return [work for work in window if work.deadline > soonest_end]

    def _choose(self, window: list[W], old_before: float, budget: int) -> list[W]:
        """`window`: oldest first, not empty. At least its first row is chosen."""
        anchor, *others = window
        if not others:
            return [anchor]
        batch, longest, shortest = [anchor], anchor.size, anchor.size
        overdue = [work for work in others if work.queued_at < old_before]
        likes = sorted(others[len(overdue) :], key=lambda work: abs(work.size - anchor.size))
        for work in (*overdue, *likes):
            long, short = max(longest, work.size), min(shortest, work.size)
            if (len(batch) + 1) * long > budget or len(batch) == self._limits.batch_rows:
                if (len(batch) + 1) * longest > budget:
                    break
                continue
            if long - short > max(ALIKE, self._limits.padding * long):
                continue
            batch.append(work)
            longest, shortest = long, short
        return batch
