"""Calls to other services: one channel each, deadlines always, domain errors back."""

import json
import time
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared.errors import UnavailableError
from shared.rpc import call_metrics, labels
from shared.rpc.channel import RenewedChannel
from shared.rpc.context import REQUEST_ID_KEY, request_id
from shared.rpc.status import from_rpc_error
from shared.rpc.tls import expect_server
from shared.telemetry import tracing
from shared.tls import TlsFiles

_MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""1,000 candidates of the largest item that can be stored."""

_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            # UNAVAILABLE alone: the one status that says the call did not run, or may run twice unharmed.
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # gRFC A6: once half the tokens are spent on failures, retries stop and cannot multiply an overload.
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", _MAX_RESPONSE_BYTES),
    ("grpc.max_send_message_length", _MAX_RESPONSE_BYTES),
    # A dependency that comes back is found within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A peer that vanished without closing its connection is noticed within 15 s instead of minutes.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Replicas are balanced by this channel itself, so it must not share connections with another.
    ("grpc.use_local_subchannel_pool", 1),
]

Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response", covariant=True)


class UnaryMethod(Protocol[Request, Response]):
    """A unary method of a generated stub."""

    def __call__(
        self,
        request: Request,
        *,
        timeout: float | None = None,
        metadata: Any = None,
    ) -> Awaitable[Response]:
        """Starts the call."""


class Dependency:
    """One downstream service: its channel, its health, and its errors as the domain's.

    `name` stands in messages ("reranker"), `service` is the full gRPC name that its health answers for,
    `target` any gRPC target (`host:port`, `dns:///name:port`, `unix:path`). With `tls` this process shows its
    certificate, and whoever answers must have one for `name`. Raises `OSError` when a file of it cannot be read.
    """

    def __init__(self, name: str, service: str, target: str, tls: TlsFiles | None = None) -> None:
        self.name = name
        self.service = service
        self._target = target
        self.channel = _open(name, target, tls)
        self._health = health_pb2_grpc.HealthStub(self.channel)
        call_metrics.CLIENT.initialise(service)

    async def call(self, method: UnaryMethod[Request, Response], request: Request, *, timeout_s: float) -> Response:
        """The response of `method`, or the `AisleError` that the dependency or the way to it meant."""
        rpc = _labels(method)
        call_metrics.CLIENT.started(rpc)
        started = time.perf_counter()
        # What is left when neither an answer nor a status came: the task that waited was cancelled.
        code = grpc.StatusCode.CANCELLED
        tracer = tracing.active()
        span = None if tracer is None else tracer.called("/".join(rpc[1:]), self._target)
        current = request_id()
        carried: tuple[tuple[str, str], ...] = ((REQUEST_ID_KEY, current),) if current else ()
        if span is not None:
            carried += span.headers
        try:
            response = await method(request, timeout=timeout_s, metadata=carried or None)
        except grpc.aio.AioRpcError as error:
            code = error.code()
            raise from_rpc_error(error, self.name) from error
        except grpc.aio.UsageError as error:
            code = grpc.StatusCode.UNAVAILABLE
            raise UnavailableError(self.name) from error
        else:
            code = grpc.StatusCode.OK
            return response
        finally:
            if span is not None:
                span.end(code)
            call_metrics.CLIENT.handled(rpc, code, time.perf_counter() - started)

    async def check(self, timeout_s: float = 1.0) -> str | None:
        """`None` when the dependency says SERVING, else why it does not serve."""
        try:
            response = await self._health.Check(health_pb2.HealthCheckRequest(service=self.service), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return f"{self.name} does not answer ({error.code().name})"
        if response.status != health_pb2.HealthCheckResponse.SERVING:
            return f"{self.name} is not serving"
        return None

    async def close(self) -> None:
        """Ends the channel and what runs on it."""
        await self.channel.close()


def _open(name: str, target: str, tls: TlsFiles | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    # All of a channel that stubs ask for, and no more.
    return cast("grpc.aio.Channel", RenewedChannel(target, tls, [*_OPTIONS, expect_server(name)]))


def _labels(method: object) -> tuple[str, str, str]:
    path = getattr(method, "_method", b"")
    return ("unary", *labels.split(path.decode() if isinstance(path, bytes) else path))
