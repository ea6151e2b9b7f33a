"""Health says what the checks say, also when a check is broken."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from grpc_health.v1 import health_pb2
from prometheus_client import REGISTRY

from shared.rpc import health
from shared.rpc.health import HealthMonitor

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def fine() -> str | None:
    return None


async def down() -> str | None:
    return "milvus does not answer"


async def broken() -> str | None:
    raise ZeroDivisionError


async def hanging() -> str | None:
    await asyncio.Event().wait()
    return None


async def status(monitor: HealthMonitor, service: str) -> int:
    response = await monitor.servicer.Check(health_pb2.HealthCheckRequest(service=service), None)
    return int(response.status)


@pytest.mark.parametrize(
    ("check", "expected"), [(fine, SERVING), (down, NOT_SERVING), (broken, NOT_SERVING), (hanging, NOT_SERVING)]
)
async def test_health_is_what_the_check_says(
    check: Callable[[], Awaitable[str | None]], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_CHECK_TIMEOUT_S", 0.05)
    monitor = HealthMonitor({"a.B": check}, interval_s=1)
    await monitor.look()
    assert await status(monitor, "a.B") == expected


async def test_before_the_first_look_nothing_serves() -> None:
    monitor = HealthMonitor({"a.B": fine}, interval_s=1)
    await monitor.open()
    assert [await status(monitor, service) for service in ("", "a.B")] == [NOT_SERVING, NOT_SERVING]


async def test_a_process_lives_while_what_it_depends_on_is_away() -> None:
    monitor = HealthMonitor({"a.B": down}, interval_s=1)
    await monitor.open()
    await monitor.look()
    assert await status(monitor, health.LIVE) == SERVING
    assert await status(monitor, "") == NOT_SERVING


async def test_a_look_that_ends_during_a_drain_brings_nothing_back() -> None:
    looking = asyncio.Event()

    async def slow() -> str | None:
        looking.set()
        await asyncio.sleep(0.02)
        return None

    monitor = HealthMonitor({"a.B": slow}, interval_s=1)
    await monitor.open()
    look = asyncio.create_task(monitor.look())
    await looking.wait()
    await monitor.drain()
    await look
    assert await status(monitor, "a.B") == NOT_SERVING
    assert REGISTRY.get_sample_value("aisle_health_serving", {"grpc_service": "a.B"}) == 0


async def test_the_whole_process_follows_the_primary_service() -> None:
    primary_down = HealthMonitor({"a.Primary": down, "a.Second": fine}, interval_s=1)
    await primary_down.look()
    assert await status(primary_down, "") == NOT_SERVING
    assert await status(primary_down, "a.Second") == SERVING
    second_down = HealthMonitor({"a.Primary": fine, "a.Second": down}, interval_s=1)
    await second_down.look()
    assert await status(second_down, "") == SERVING
    assert await status(second_down, "a.Second") == NOT_SERVING


@pytest.mark.parametrize(("shared_fate", "expected"), [(False, NOT_SERVING), (True, SERVING)])
async def test_a_replica_leaves_the_rotation_for_a_fault_of_its_own(shared_fate: bool, expected: int) -> None:
    monitor = HealthMonitor({"a.Primary": down, "a.Second": fine}, interval_s=1, shared_fate=shared_fate)
    await monitor.open()
    assert await status(monitor, health.REPLICA) == expected
    await monitor.look()
    assert await status(monitor, health.REPLICA) == expected


async def test_a_replica_that_drains_keeps_the_calls_of_those_who_hold_a_connection() -> None:
    monitor = HealthMonitor({"a.B": fine}, interval_s=1)
    await monitor.open()
    await monitor.look()
    await monitor.drain()
    await monitor.look()
    told = [await status(monitor, service) for service in ("", "a.B", health.REPLICA, health.LIVE)]
    assert told == [NOT_SERVING, NOT_SERVING, SERVING, SERVING]
    await monitor.leave()
    await monitor.look()
    assert await status(monitor, health.REPLICA) == NOT_SERVING


async def test_it_follows_changes_by_itself() -> None:
    answers = iter([None, "stalled", None, None, None, None, None, None, None])
    seen: list[int] = []

    async def check() -> str | None:
        return next(answers)

    monitor = HealthMonitor({"a.B": check}, interval_s=0.02)
    running = asyncio.create_task(monitor.run())
    while len(set(seen)) < 2 or seen[-1] != SERVING:
        await asyncio.sleep(0.005)
        seen.append(await status(monitor, "a.B") if "a.B" in monitor.servicer._server_status else NOT_SERVING)
    running.cancel()
    assert NOT_SERVING in seen


async def test_after_a_drain_nothing_serves_again() -> None:
    monitor = HealthMonitor({"a.B": fine}, interval_s=1)
    await monitor.look()
    await monitor.drain()
    await monitor.look()
    assert await status(monitor, "a.B") == NOT_SERVING
    assert await status(monitor, "") == NOT_SERVING
