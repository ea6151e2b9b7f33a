"""How well items answer a query: the interface that late interaction and cross-encoders share."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.bundles import Bundle
from shared.errors import AisleError, DeadlineError
from shared.inference.batcher import Batcher
from shared.inference.queue import Priority

MARGIN_S = 0.01
MARGIN_SHARE = 0.1
"""How long before the deadline scoring stops, so that what is scored still reaches the caller: `MARGIN_S` seconds at
least, and a tenth of the time given. Where time runs out the machine is busy, and answers take longer on their way."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one call."""

    values: Sequence[float | None]
    """One a text, in order; higher is better, 0 to 1 in practice. None: not scored, because the deadline came
    near or the text failed."""
    failures: Mapping[int, AisleError] = field(default_factory=dict)
    """By the text's index: those that failed alone."""

    @property
    def unscored(self) -> int:
        """How many have no score."""
        return sum(value is None for value in self.values)


class Scorer(Protocol):
    """Anytime: as the deadline nears, what is scored is returned and the rest is left unscored."""

    @property
    def bundle(self) -> Bundle:
        """The model; scores of different versions are not comparable."""

    @property
    def batcher(self) -> Batcher[Any, Any]:
        """The scorer's own: its health is the scorer's."""

    async def warm_up(self) -> None:
        """Run typical batches once."""

    async def start(self) -> None:
        """Start the batcher."""

    async def drain(self, timeout_s: float) -> bool:
        """See `Batcher.drain`."""

    async def close(self) -> None:
        """See `Batcher.close`."""

    async def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        query_rows: NDArray[np.float32] | None = None,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
    ) -> Scores:
        """Scores of item texts for one query.

        `query_rows`: what `text_rows` gives of `query` by the same bundle, where the caller has it. Late interaction
        then does not encode the query; a cross-encoder has no use for it.

        Raises `InvalidArgumentError` for a query that is no text, `DeadlineError` if the deadline has passed
        already, `OverloadedError` when the queue is full.
        """


class OwnsBatcher:
    """The life of a scorer is its batcher's."""

    def __init__(self, bundle: Bundle, batcher: Batcher[Any, Any]) -> None:
        self.bundle = bundle
        self.batcher = batcher

    async def submit_in_time(
        self, rows: Sequence[Any], *, priority: Priority, until: float | None
    ) -> Sequence[Any | AisleError]:
        """As `Batcher.submit`; rows for which no time was left are unscored, each, and no error of the call."""
        try:
            return await self.batcher.submit(rows, priority=priority, deadline=until)
        except DeadlineError as error:
            return [error] * len(rows)

    async def start(self) -> None:
        """Start the batcher."""
        await self.batcher.start()

    async def drain(self, timeout_s: float) -> bool:
        """See `Batcher.drain`."""
        return await self.batcher.drain(timeout_s)

    async def close(self) -> None:
        """See `Batcher.close`."""
        await self.batcher.close()


def stop_at(deadline: float | None) -> float | None:
    """When to stop scoring; raises `DeadlineError` when even the deadline itself has passed."""
    if deadline is None:
        return None
    now = time.monotonic()
    if deadline <= now:
        raise DeadlineError("the deadline had passed before scoring began")
    # Never in the past: a tight deadline still gets its refusals row by row, as unscored.
    return max(deadline - max(MARGIN_S, MARGIN_SHARE * (deadline - now)), math.nextafter(now, math.inf))


def collect(outcomes: Mapping[int, float | AisleError], count: int) -> Scores:
    """`outcomes` by index; a `DeadlineError` means unscored and is not a failure."""
    values: list[float | None] = [None] * count
    failures: dict[int, AisleError] = {}
    for index, outcome in outcomes.items():
        if not isinstance(outcome, AisleError):
            values[index] = outcome
        elif not isinstance(outcome, DeadlineError):
            failures[index] = outcome
    return Scores(values, failures)
