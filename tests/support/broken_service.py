"""A service that is there, says that it serves, and fails every call."""

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from shared.rpc.health import REPLICA


class Broken(grpc.GenericRpcHandler):
    """Answers every call with `code`."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.calls = 0
        self._code = code

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method.startswith("/grpc.health."):
            return None
        return grpc.unary_unary_rpc_method_handler(self._fail)

    def _fail(self, request: Any, context: Any) -> Any:
        self.calls += 1
        context.abort(self._code, "on purpose")


@contextmanager
def broken(address: str, code: grpc.StatusCode, credentials: grpc.ServerCredentials | None = None) -> Iterator[Broken]:
    """A server that says SERVING and does not serve."""
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    healthy = health.HealthServicer(experimental_non_blocking=True)
    healthy.set(REPLICA, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    failing = Broken(code)
    server.add_generic_rpc_handlers([failing])
    if credentials is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, credentials)
    server.start()
    try:
        yield failing
    finally:
        server.stop(0).wait()
