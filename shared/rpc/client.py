"""Calls to other services: one channel each, deadlines always, domain errors back."""

import time
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared.errors import UnavailableError
from shared.rpc import call_metrics, labels
from shared.rpc.balancing import service_config
from shared.rpc.channel import RenewedChannel
from shared.rpc.context import REQUEST_ID_KEY, request_id
from shared.rpc.status import from_rpc_error
from shared.rpc.tls import expect_server
from shared.telemetry import tracing
from shared.tls import TlsFiles

_MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""1,000 candidates of the largest item that can be stored."""

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", _MAX_RESPONSE_BYTES),
    ("grpc.max_send_message_length", _MAX_RESPONSE_BYTES),
    # Names are resolved anew when a replica goes or says goodbye; gRPC's default of 30 s between two resolutions would
    # miss that a rolling restart has replaced them all.
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
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
    `target` any gRPC target (`host:port`, `dns:///name:port`, `ipv4:host:port,host:port`, `unix:path`); calls are
    spread over all the replicas that it names, unless `client_balancing` is left to a proxy in between. With `tls` this
    process shows its certificate, and whoever answers must have one for `name`: `OSError` when a file cannot be read.
    """

    def __init__(
        self, name: str, service: str, target: str, tls: TlsFiles | None = None, *, client_balancing: bool = True
    ) -> None:
        self.name = name
        self.service = service
        self._target = target
        options = [*_OPTIONS, ("grpc.service_config", service_config(client_balancing=client_balancing))]
        if tls is not None:
            options.append(expect_server(name))
        self.channel = _open(target, tls, options)
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


def _open(target: str, tls: TlsFiles | None, options: list[tuple[str, Any]]) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    # All of a channel that stubs ask for, and no more.
    return cast("grpc.aio.Channel", RenewedChannel(target, tls, options))


def _labels(method: object) -> tuple[str, str, str]:
    path = getattr(method, "_method", b"")
    return ("unary", *labels.split(path.decode() if isinstance(path, bytes) else path))
