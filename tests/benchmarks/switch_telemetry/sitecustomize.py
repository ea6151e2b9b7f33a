"""Put first on a service's PYTHONPATH: SIGUSR1 turns its metrics and tracing off, SIGUSR2 on again. To measure what
they cost in one and the same process, for two that run the same code differ by more. There is no other use.
"""

import contextlib
import signal
from typing import Any

from prometheus_client import Counter, Gauge, Histogram


class _Nothing:
    """A series that takes everything and keeps nothing."""

    def labels(self, *values: Any, **named: Any) -> "_Nothing":
        return self

    def ignore(self, *values: Any, **named: Any) -> None:
        pass

    def time(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    inc = dec = set = observe = ignore


_NOTHING = _Nothing()
_COUNTING = {
    (kind, name): getattr(kind, name)
    for kind in (Counter, Gauge, Histogram)
    for name in ("labels", "inc", "dec", "set", "observe", "time")
    if hasattr(kind, name)
}
_tracer: Any = None


def _off(*_: Any) -> None:
    # Not before: it is a service's own packages that are imported here.
    from shared.telemetry import tracing

    global _tracer
    _tracer = tracing.active() or _tracer
    tracing.install(None)
    for kind, name in _COUNTING:
        setattr(kind, name, getattr(_NOTHING, name))


def _on(*_: Any) -> None:
    from shared.telemetry import tracing

    tracing.install(_tracer or tracing.active())
    for (kind, name), counting in _COUNTING.items():
        setattr(kind, name, counting)


signal.signal(signal.SIGUSR1, _off)
signal.signal(signal.SIGUSR2, _on)
