"""The metrics of calls, the same three on either side of the wire."""

import grpc
from google.protobuf import descriptor_pool
from prometheus_client import Counter, Histogram

from shared.rpc import labels
from shared.telemetry import metrics, tracing

Rpc = tuple[str, str, str]
"""`grpc_type`, `grpc_service`, `grpc_method`."""


class _Series:
    """Of one method. Found once: to look one up by its labels costs three times what it costs to count."""

    def __init__(self, rpc: Rpc, started: Counter, handled: Counter, seconds: Histogram) -> None:
        self.started = started.labels(*rpc)
        self.seconds = seconds.labels(*rpc)
        # Every series exists before its first call, so that a rate over it is 0 and not absent.
        self.handled = {code: handled.labels(*rpc, labels.code(code)) for code in grpc.StatusCode}


class CallMetrics:
    """One side's."""

    def __init__(self, started: Counter, handled: Counter, seconds: Histogram) -> None:
        self._metrics = (started, handled, seconds)
        self._series: dict[Rpc, _Series] = {}

    def initialise(self, service: str) -> None:
        """Makes the series of every method of `service` exist. Nothing is done for a service whose contract this
        process has not loaded."""
        try:
            methods = descriptor_pool.Default().FindServiceByName(service).methods
        except KeyError:
            return
        for method in methods:
            self._of((labels.kind(method.client_streaming, method.server_streaming), service, method.name))

    def started(self, rpc: Rpc) -> None:
        """One call began."""
        self._of(rpc).started.inc()

    def handled(self, rpc: Rpc, code: grpc.StatusCode, seconds: float) -> None:
        """One call ended with `code`, `seconds` after it began."""
        series = self._of(rpc)
        series.handled[code].inc()
        series.seconds.observe(seconds, tracing.exemplar())

    def _of(self, rpc: Rpc) -> _Series:
        found = self._series.get(rpc)
        if found is None:
            found = self._series[rpc] = _Series(rpc, *self._metrics)
        return found


SERVER = CallMetrics(metrics.SERVER_STARTED, metrics.SERVER_HANDLED, metrics.SERVER_HANDLING_SECONDS)
CLIENT = CallMetrics(metrics.CLIENT_STARTED, metrics.CLIENT_HANDLED, metrics.CLIENT_HANDLING_SECONDS)
