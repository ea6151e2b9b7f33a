"""A circuit breaker: a dependency that just failed is not waited for again until a probe has found it well.

    closed ── `failures` in a row ──→ open ── after `open_s` ──→ half-open ── probe succeeds ──→ closed
                                       ↑───────────── probe fails ─────────────┘

The pattern is M. Nygard's (Release It!, "Circuit Breaker"). `Breaker` is the state machine and does nothing else;
`Guard` puts one around the calls to one dependency.
"""

import time
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TypeVar

import structlog

from shared.errors import AisleError, DeadlineError, UnavailableError

_log = structlog.get_logger()

Clock = Callable[[], float]
"""Seconds that never go back (`time.monotonic`)."""
Ticket = int
"""Names the breaker's state at the time of a call, so that late news of an earlier state is not believed."""
T = TypeVar("T")

_MIN_RETRY_AFTER_S = 0.05
"""Hint while a probe is under way: about the time a healthy dependency takes to answer it."""


class State(Enum):
    """Where a breaker stands: calls pass, calls are refused, or one call tries."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Opens after `failures` failures in a row, for `open_s` seconds. Not for use from several threads."""

    def __init__(self, failures: int, open_s: float, clock: Clock = time.monotonic) -> None:
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._state = State.CLOSED
        self._failed = 0
        self._opened_at = 0.0
        self._ticket: Ticket = 0

    @property
    def state(self) -> State:
        """The state at the last event; an open breaker turns half-open when the next call arrives."""
        return self._state

    def enter(self) -> Ticket | None:
        """A ticket for a call, to be handed back once with its outcome; `None` when the call must not be made."""
        if self._state is State.OPEN and self._clock() - self._opened_at >= self._open_s:
            self._move(State.HALF_OPEN)
            return self._ticket
        return self._ticket if self._state is State.CLOSED else None

    def succeeded(self, ticket: Ticket) -> None:
        """The dependency answered."""
        if ticket != self._ticket:
            return
        self._failed = 0
        if self._state is State.HALF_OPEN:
            self._move(State.CLOSED)

    def failed(self, ticket: Ticket) -> None:
        """The dependency did not answer."""
        if ticket != self._ticket:
            return
        self._failed += 1
        if self._state is State.HALF_OPEN or self._failed >= self._limit:
            self._opened_at = self._clock()
            self._move(State.OPEN)

    def abandoned(self, ticket: Ticket) -> None:
        """The call ended before the dependency could have answered: nothing is known, and the next call may probe."""
        if ticket == self._ticket and self._state is State.HALF_OPEN:
            self._move(State.OPEN)

    def retry_after_s(self) -> float:
        """Seconds until the next call is let through; a short wait while a probe is under way."""
        left = self._opened_at + self._open_s - self._clock() if self._state is State.OPEN else 0.0
        return max(left, _MIN_RETRY_AFTER_S)

    def _move(self, state: State) -> None:
        self._state = state
        self._failed = 0
        self._ticket += 1


class Guard:
    """Calls to the dependency `name` behind `breaker`.

    A call that got no answer for `patience_s` seconds or more speaks against the dependency; one that was given less
    time speaks against the caller's deadline, and opens nothing for others. Calls that were under way together speak
    once: one hitch fails all of them, and is no reason to leave a dependency alone that answers the next.
    """

    def __init__(self, name: str, breaker: Breaker, *, patience_s: float, clock: Clock = time.monotonic) -> None:
        self.name = name
        self.breaker = breaker
        self._patience_s = patience_s
        self._clock = clock
        self._failed_at = float("-inf")

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of `call`, or the error it raised, with a dependency that hangs as `UnavailableError`."""
        ticket = self.breaker.enter()
        if ticket is None:
            raise UnavailableError(
                self.name,
                f"{self.name} failed moments ago and is being given time to recover; retry shortly",
                retry_after_s=self.breaker.retry_after_s(),
            )
        started = self._clock()
        try:
            result = await call()
        except UnavailableError:
            self._fail(ticket, started)
            raise
        except DeadlineError as error:
            waited = self._clock() - started
            if waited < self._patience_s:
                self.breaker.abandoned(ticket)
                raise
            self._fail(ticket, started)
            raise UnavailableError(self.name, f"{self.name} did not answer within {waited:.1f} s") from error
        except AisleError:
            self.breaker.succeeded(ticket)
            raise
        except BaseException:
            self.breaker.abandoned(ticket)
            raise
        self.breaker.succeeded(ticket)
        return result

    def _fail(self, ticket: Ticket, started: float) -> None:
        if started < self._failed_at:
            self.breaker.abandoned(ticket)
            return
        self._failed_at = self._clock()
        before = self.breaker.state
        self.breaker.failed(ticket)
        if before is State.CLOSED and self.breaker.state is State.OPEN:
            _log.warning("dependency down", dependency=self.name)
