"""Running one batch, and finding the row that cannot be run."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from shared.errors import AisleError, DeadlineError, InternalError
from shared.inference.backend import Backend
from shared.inference.observer import EngineObserver
from shared.inference.pace import Pace
from shared.inference.watchdog import Watchdog

log = logging.getLogger(__name__)


class HasPayload(Protocol):
    """A queued row, and what the backend gets of it."""

    @property
    def payload(self) -> Any:
        """The backend's row."""

    @property
    def size(self) -> int:
        """Tokens."""

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for it yet."""


R = TypeVar("R", bound=HasPayload)
ResultT = TypeVar("ResultT")
_GONE = DeadlineError("nobody waits for it any more")
Done = Sequence[tuple[R, ResultT | AisleError]]


class Forward(Generic[ResultT]):
    """prepare, run, finish; a batch that fails is halved until each failing row stands alone.

    A poison row among n costs 2 log2(n) more passes, and its neighbours get their results.
    """

    def __init__(
        self,
        backend: Backend[Any, ResultT],
        watchdog: Watchdog,
        pace: Pace,
        observer: EngineObserver,
        clock: Callable[[], float],
    ) -> None:
        self._backend = backend
        self._watchdog = watchdog
        self._pace = pace
        self._observer = observer
        self._clock = clock

    def __call__(self, batch: Sequence[R]) -> Done[R, ResultT]:
        """One outcome a row. Raises nothing that is a row's fault."""
        try:
            outcomes = self._once(batch)
        except Exception as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                return [*self._again(batch[:middle]), *self._again(batch[middle:])]
            outcomes = [error]
        done = [(row, self._outcome(outcome)) for row, outcome in zip(batch, outcomes, strict=True)]
        if failed := sum(isinstance(outcome, AisleError) for _, outcome in done):
            self._observer.failed(failed)
        return done

    def _again(self, half: Sequence[R]) -> Done[R, ResultT]:
        gone: list[tuple[R, ResultT | AisleError]] = [(row, _GONE) for row in half if not row.wanted]
        left = [row for row in half if row.wanted] if gone else half
        return [*gone, *self(left)] if left else gone

    def _once(self, batch: Sequence[R]) -> Sequence[ResultT | Exception]:
        started = self._clock()
        self._watchdog.begin(started)
        try:
            prepared = self._backend.prepare([row.payload for row in batch])
            raw = self._backend.run(prepared)
            outcomes = self._backend.finish(prepared, raw)
        finally:
            ended = self._clock()
            self._watchdog.end(ended)
        if len(outcomes) != len(batch):
            raise InternalError(f"the backend gave {len(outcomes)} results for {len(batch)} rows")
        tokens = sum(row.size for row in batch)
        area = len(batch) * max(row.size for row in batch)
        self._pace.record(tokens, ended - started)
        self._observer.batch(len(batch), tokens, 1 - tokens / area if area else 0.0, ended - started)
        return outcomes

    @staticmethod
    def _outcome(outcome: ResultT | Exception) -> ResultT | AisleError:
        if not isinstance(outcome, Exception):
            return outcome
        if isinstance(outcome, AisleError):
            return outcome
        # The type only: a library's message may quote the text.
        log.warning("a row failed alone: %s", type(outcome).__name__)
        error = InternalError("the model could not process this text")
        error.__cause__ = outcome
        return error
