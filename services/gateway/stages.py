"""Where the time of a request went."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from shared.telemetry import tracing

TOTAL = "total"


class StageTiming(NamedTuple):
    """How long one stage took."""

    stage: str
    milliseconds: float


class Stages:
    """Times the stages of one request. `clock` gives seconds (`time.perf_counter`)."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started = clock()
        self._spans: list[list[float]] = []
        self._names: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times what runs inside, whether it ends well or not; a span where the request is traced."""
        span = [self._clock(), 0.0]
        self._names.append(name)
        self._spans.append(span)
        try:
            with tracing.span(name):
                yield
        finally:
            span[1] = self._clock()

    def timings(self) -> tuple[StageTiming, ...]:
        """The stages so far in the order they began, then `total`: from the start until now."""
        timed = [
            StageTiming(name, (end - start) * 1000) for name, (start, end) in zip(self._names, self._spans, strict=True)
        ]
        return (*timed, StageTiming(TOTAL, (self._clock() - self._started) * 1000))
