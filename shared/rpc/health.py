"""`grpc.health.v1`, told by looking: each service's check runs every interval, and its answer is what health says."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog
from grpc_health.v1 import health, health_pb2

from shared.telemetry import metrics

_log = structlog.get_logger()

Check = Callable[[], Awaitable[str | None]]
"""`None` when the service can do its work now, else the reason why not, fit for a log line."""

_CHECK_TIMEOUT_S = 2.0
"""A check that hangs says that what it looks at hangs."""

LIVE = "live"
"""What a liveness probe asks for: SERVING as long as this process answers at all. A service whose dependency is away
does not serve, and is not helped by being restarted."""

REPLICA = "replica"
"""What a client that balances over replicas watches (gRFC A17): SERVING while this one is as good as the others.

It follows the primary service, with two exceptions. Where that one's check looks at what all replicas depend on alike
(a store), none is better than another without it, and callers want to hear from one why they fail. And one that drains
answers as ever until just before its connections end, which is what makes clients look for its successors: those that
know of no other replica yet would have none.
"""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthMonitor:
    """Keeps `servicer` truthful. `checks` by full gRPC service name; `""` follows the first, as does `REPLICA` unless
    the replicas have a `shared_fate`; `LIVE` follows none."""

    def __init__(self, checks: Mapping[str, Check], interval_s: float, *, shared_fate: bool = False) -> None:
        self.servicer = health.aio.HealthServicer()
        self._checks = checks
        self._interval_s = interval_s
        self._follow_primary = ("",) if shared_fate else ("", REPLICA)
        self._reasons: dict[str, str | None] = {}
        self._draining = False

    async def open(self) -> None:
        """NOT_SERVING for everything until the first look; gRPC's servicer starts with SERVING."""
        for always in (LIVE, REPLICA):
            await self.servicer.set(always, _SERVING)
        for service in (*self._follow_primary, *self._checks):
            await self.servicer.set(service, _NOT_SERVING)

    async def run(self) -> None:
        """Looks again and again until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """Runs every check once and publishes what they say."""
        reasons = await asyncio.gather(*(self._reason(check) for check in self._checks.values()))
        for position, (service, reason) in enumerate(zip(self._checks, reasons, strict=True)):
            # Asked each time: a drain may begin while an answer is published.
            if self._draining:
                return
            await self._publish(service, reason)
            if position == 0:
                for name in self._follow_primary:
                    await self.servicer.set(name, _SERVING if reason is None else _NOT_SERVING)

    async def drain(self) -> None:
        """NOT_SERVING for good, for all but those that watch `REPLICA`."""
        self._draining = True
        for service in ("", *self._checks):
            await self.servicer.set(service, _NOT_SERVING)
        for service in self._checks:
            metrics.HEALTH_SERVING.labels(service).set(0)

    async def leave(self) -> None:
        """NOT_SERVING for good, for those that watch `REPLICA` too."""
        self._draining = True
        await self.servicer.set(REPLICA, _NOT_SERVING)

    async def _reason(self, check: Check) -> str | None:
        try:
            return await asyncio.wait_for(check(), _CHECK_TIMEOUT_S)
        except TimeoutError:
            return f"the check did not answer within {_CHECK_TIMEOUT_S:g} s"
        except Exception as error:
            _log.error("health check failed", exc_info=error)
            return "the check itself failed"

    async def _publish(self, service: str, reason: str | None) -> None:
        known = service in self._reasons
        if not known or self._reasons[service] != reason:
            if reason is None:
                _log.info("serving", grpc_service=service)
            else:
                _log.warning("not serving", grpc_service=service, why=reason)
        self._reasons[service] = reason
        metrics.HEALTH_SERVING.labels(service).set(reason is None)
        await self.servicer.set(service, _SERVING if reason is None else _NOT_SERVING)
