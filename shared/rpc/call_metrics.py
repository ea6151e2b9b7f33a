"""The metrics of calls, the same three on either side of the wire."""

from dataclasses import dataclass

import grpc
from google.protobuf import descriptor_pool
from prometheus_client import Counter, Histogram

from shared.rpc import labels
from shared.telemetry import metrics, tracing

Rpc = tuple[str, str, str]
"""`grpc_type`, `grpc_service`, `grpc_method`."""


@dataclass(frozen=True, slots=True)
class CallMetrics:
    """One side's."""

    _started: Counter
    _handled: Counter
    _seconds: Histogram

    def initialise(self, service: str) -> None:
        """Makes the series of every method of `service` exist before its first call, so that a rate over them is 0
        and not absent. Nothing is done for a service whose contract this process has not loaded."""
        try:
            methods = descriptor_pool.Default().FindServiceByName(service).methods
        except KeyError:
            return
        for method in methods:
            rpc = (labels.kind(method.client_streaming, method.server_streaming), service, method.name)
            self._started.labels(*rpc)
            self._seconds.labels(*rpc)
            for code in grpc.StatusCode:
                self._handled.labels(*rpc, labels.code(code))

    def started(self, rpc: Rpc) -> None:
        """One call began."""
        self._started.labels(*rpc).inc()

    def handled(self, rpc: Rpc, code: grpc.StatusCode, seconds: float) -> None:
        """One call ended with `code`, `seconds` after it began."""
        self._handled.labels(*rpc, labels.code(code)).inc()
        self._seconds.labels(*rpc).observe(seconds, tracing.exemplar())


SERVER = CallMetrics(metrics.SERVER_STARTED, metrics.SERVER_HANDLED, metrics.SERVER_HANDLING_SECONDS)
CLIENT = CallMetrics(metrics.CLIENT_STARTED, metrics.CLIENT_HANDLED, metrics.CLIENT_HANDLING_SECONDS)
