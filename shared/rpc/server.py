"""The life of a service process: settings, metrics, load, serve, drain, end.

    async def build(settings, stack): ...        # load the model, connect; returns what is served
    main("gateway", GatewaySettings, build)

The gRPC port opens when `build` has returned, so a port that answers belongs to a warm service. SIGTERM and SIGINT
drain: health flips first, new calls are refused and connections told to end after `drain_delay_s`, running ones get
`grace_s` to finish. A second signal ends the process at once.
"""

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server
from threadpoolctl import threadpool_limits

from shared.errors import AisleError
from shared.rpc import call_metrics
from shared.rpc.health import Check, HealthMonitor
from shared.rpc.interceptor import CallInterceptor, Gate
from shared.rpc.tls import Callers, server_credentials
from shared.settings import ServiceSettings
from shared.telemetry import logs, tracing

_log = structlog.get_logger()

_TRANSPORT_SLACK = 4
"""gRPC itself cuts off at this many times `max_request_bytes`, with RESOURCE_EXHAUSTED and no field named; up to
there the interceptor refuses with INVALID_ARGUMENT, which says what to do."""

_ALONE: list[tuple[str, Any]] = [("grpc.so_reuseport", 0)]
"""Two processes on one port would share its calls unnoticed."""

_PENDING: list[tuple[str, Any]] = [
    ("grpc.server.max_pending_requests", 4_000),
    ("grpc.server.max_pending_requests_hard_limit", 8_000),
]
"""Calls that have arrived and wait for the event loop, which answers each or tells it when to come back. Beyond the
first number gRPC cancels some, beyond the second all, and says nothing of trying again: at its own 1,000 a burst of
2,000 callers lost a tenth so. They hold their headers and what flow control lets in, so there is a limit."""

_YOUNG_OBJECTS = 10_000
"""Containers made before the garbage collector looks for cycles among them. Python's 700 are a few searches' messages,
which go without it; at 10,000 there are some megabytes at most that only it could free."""

_OLD_CALLS_S = 3_600.0
"""For which calls go on, on a connection that is too old for new ones: beyond what the longest take, an import or a
comparison of two large generations. A drain has a grace of its own."""

_LEAVE_S = 0.2
"""From telling clients that watch to ending connections. gRPC's server cancels calls that have arrived and wait for the
event loop when it stops, so there should be none. No longer: a client that knows of no other replica looks for one when
the connection ends, and its retries last as long as this."""

Settings = TypeVar("Settings", bound=ServiceSettings)


@dataclass(frozen=True)
class ServedService:
    """One gRPC service of a process.

    `name` is its full name (`aisle.gateway.v1.Gateway`), `register` adds its servicer to a server, `check` is what
    its health says. With `shared_fate` that check looks at what all replicas depend on alike. `gate` is asked before a
    request is read, of unary methods: while there is too much to do, refusing must cost little.
    """

    name: str
    register: Callable[[grpc.aio.Server], None]
    check: Check
    shared_fate: bool = False
    gate: Gate | None = None


Build = Callable[[Settings, contextlib.AsyncExitStack], Awaitable[Sequence[ServedService]]]
"""Makes what a process serves. Slow work (loading, warming up) belongs here; clean-up goes on the stack. Must not
fail because a remote dependency is down: that is for `check` to say. The first service is the primary one."""


class StartupError(Exception):
    """The service cannot start; the message says what to change."""


def main(name: str, settings_type: type[Settings], build: Build[Settings]) -> None:
    """Runs the service `name` until it is told to stop; exits 1 with one clear line if it cannot start."""
    settings = settings_type.parse()
    if settings.print_config:
        sys.stdout.write(settings.redacted_json() + "\n")
        return
    logs.configure(name, settings.log_level, settings.log_format)
    _spare_what_stays()
    # A service's products are small, and its cores busy with calls: threads of OpenBLAS that wait for each other there
    # make 0.2 ms of a re-ranker's product into 14 to 75 ms.
    threadpool_limits(1, "blas")
    try:
        if settings.otlp_endpoint:
            tracing.start(name, settings.otlp_endpoint, settings.trace_sample_ratio)
        # gRPC hands each of its events to the loop: 4 to 8 % more calls a second than by asyncio's own.
        uvloop.run(serve(settings, build))
    except (StartupError, AisleError, tracing.TracingUnavailableError) as error:
        _log.critical("cannot start", why=str(error))
        sys.exit(1)
    finally:
        tracing.stop()


def _spare_what_stays() -> None:
    """Modules stay for as long as the process: the garbage collector need not walk them again and again, which took a
    twentieth of the gateway's time, some of it in one go. Before a model is loaded, which may be replaced."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)


async def serve(settings: Settings, build: Build[Settings]) -> None:
    """Loads, serves, and returns after a signal and the drain it starts."""
    stopping = _stop_on_signal()
    _check_certificate(settings)
    async with contextlib.AsyncExitStack() as stack:
        _serve_metrics(settings, stack)
        loading = asyncio.ensure_future(build(settings, stack))
        waiting = asyncio.ensure_future(stopping.wait())
        await asyncio.wait({loading, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            loading.cancel()
            # What it opened is closed by the stack, so it must have ended by then.
            await asyncio.wait({loading})
            return
        services = loading.result()
        monitor = HealthMonitor(
            {s.name: s.check for s in services}, settings.health_interval_s, shared_fate=services[0].shared_fate
        )
        server = make_server(settings, services, monitor)
        _listen(server, settings)
        await monitor.open()
        await _serve_health(settings, monitor, stack)
        await server.start()
        watching = asyncio.create_task(monitor.run())
        _log.info("listening", address=f"{settings.host}:{settings.port}", metrics_port=settings.metrics_port)
        await waiting
        await drain(settings, server, monitor)
        watching.cancel()


async def drain(settings: ServiceSettings, server: grpc.aio.Server, monitor: HealthMonitor) -> None:
    """Ends `server` so that nobody who balances, by probes, by DNS or by watching its health, loses a call."""
    _log.info("draining", drain_delay_s=settings.drain_delay_s, grace_s=settings.grace_s)
    await monitor.drain()
    await asyncio.sleep(settings.drain_delay_s)
    await monitor.leave()
    await asyncio.sleep(_LEAVE_S)
    await server.stop(settings.grace_s)
    _log.info("stopped")


def make_server(
    settings: ServiceSettings, services: Sequence[ServedService], monitor: HealthMonitor
) -> grpc.aio.Server:
    """A server of `services`, of their health and of what describes them, that listens nowhere yet."""
    options: list[tuple[str, Any]] = [
        *_ALONE,
        *_PENDING,
        ("grpc.max_receive_message_length", settings.max_request_bytes * _TRANSPORT_SLACK),
        ("grpc.max_send_message_length", -1),
        # Clients of this project ping every 10 s; gRPC's default of 5 min would call that abuse.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    if settings.max_connection_age_s:
        options += [
            ("grpc.max_connection_age_ms", round(settings.max_connection_age_s * 1000)),
            ("grpc.max_connection_age_grace_ms", round(_OLD_CALLS_S * 1000)),
        ]
    server = grpc.aio.server(
        interceptors=[
            CallInterceptor(
                settings.default_timeout_s,
                settings.max_request_bytes,
                Callers(settings.callers) if settings.mtls() else None,
                {service.name: service.gate for service in services if service.gate is not None},
            )
        ],
        options=options,
    )
    for service in services:
        service.register(server)
        call_metrics.SERVER.initialise(service.name)
    health_pb2_grpc.add_HealthServicer_to_server(monitor.servicer, server)
    reflection.enable_server_reflection(
        (*(s.name for s in services), health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    return server


def _listen(server: grpc.aio.Server, settings: ServiceSettings) -> None:
    address = f"{settings.host}:{settings.port}"
    files = settings.mtls()
    try:
        if files is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, server_credentials(files))
    except RuntimeError:
        raise _unusable("port", settings.port, settings.host) from None


async def _serve_health(settings: ServiceSettings, monitor: HealthMonitor, stack: contextlib.AsyncExitStack) -> None:
    """Health alone, to whoever asks, until everything else has ended."""
    if settings.health_port is None:
        return
    server = grpc.aio.server(options=_ALONE)
    health_pb2_grpc.add_HealthServicer_to_server(monitor.servicer, server)
    try:
        server.add_insecure_port(f"{settings.host}:{settings.health_port}")
    except RuntimeError:
        raise _unusable("health port", settings.health_port, settings.host) from None
    await server.start()
    stack.push_async_callback(server.stop, None)


def _check_certificate(settings: ServiceSettings) -> None:
    """Before a model is loaded for a port that could not be opened."""
    try:
        if (files := settings.mtls()) is not None:
            files.read()
    except OSError as error:
        raise StartupError(f"{error.filename} cannot be read ({error.strerror}); see mtls_*_file") from None


def _serve_metrics(settings: ServiceSettings, stack: contextlib.AsyncExitStack) -> None:
    try:
        http, thread = start_http_server(settings.metrics_port, settings.host)
    except OSError:
        raise _unusable("metrics port", settings.metrics_port, settings.host) from None
    stack.callback(thread.join)
    stack.callback(http.server_close)
    stack.callback(http.shutdown)


def _unusable(what: str, port: int, host: str) -> StartupError:
    flag = what.replace(" ", "-")
    return StartupError(f"{what} {port} on {host} is in use or not allowed; choose another with --{flag}")


def _stop_on_signal() -> asyncio.Event:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        if stopping.is_set():
            # Asked twice: whoever asks does not want to wait.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    return stopping
