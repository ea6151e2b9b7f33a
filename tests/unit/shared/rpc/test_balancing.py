"""A channel over real servers: which of them gets the calls, and what becomes of calls when one of them fails."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from aisle.encoder.v1 import query_encoder_pb2_grpc
from grpc_health.v1 import health_pb2_grpc

from shared.errors import AisleError, InternalError, OverloadedError, UnavailableError
from shared.rpc import balancing, client
from shared.rpc.client import Dependency
from shared.rpc.health import HealthMonitor
from shared.rpc.interceptor import CallInterceptor
from shared.rpc.server import drain
from shared.settings import ServiceSettings
from tests.support.dns import names
from tests.unit.shared.rpc.conftest import SERVICE, Request, Response, Scripted, forever

OPTIONS = client._OPTIONS
INTERVAL_S = 0.2
"""Of outlier detection, so that a test need not wait for the real one."""


@dataclass
class Replica:
    """One server; `calls` counts what it was given."""

    server: grpc.aio.Server
    monitor: HealthMonitor
    address: str
    scripted: Scripted
    why: str | None = None
    calls: int = field(default=0)

    async def answers(self, request: Any, context: Any) -> Response:
        self.calls += 1
        return Response()

    def fails_with(self, error: AisleError) -> None:
        async def fail(request: Any, context: Any) -> Response:
            self.calls += 1
            raise error

        self.scripted.behaviour = fail

    async def hangs(self, request: Any, context: Any) -> Response:
        self.calls += 1
        return await forever(request, context)


@asynccontextmanager
async def serving(
    address: str = "127.0.0.1:0", *, shared_fate: bool = False, options: Sequence[tuple[str, Any]] = ()
) -> AsyncIterator[Replica]:
    server = grpc.aio.server(interceptors=[CallInterceptor(10.0, 4 << 20)], options=options)

    async def check() -> str | None:
        return replica.why

    monitor = HealthMonitor({SERVICE: check}, interval_s=1, shared_fate=shared_fate)
    scripted = Scripted()
    query_encoder_pb2_grpc.add_QueryEncoderServicer_to_server(scripted, server)
    health_pb2_grpc.add_HealthServicer_to_server(monitor.servicer, server)
    host, _, _ = address.partition(":")
    port = server.add_insecure_port(address)
    replica = Replica(server, monitor, f"{host}:{port}", scripted)
    scripted.behaviour = replica.answers
    await monitor.open()
    await monitor.look()
    await server.start()
    yield replica
    await server.stop(None)


@asynccontextmanager
async def shop(count: int = 3, **options: Any) -> AsyncIterator[tuple[list[Replica], Dependency]]:
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(serving(**options)) for _ in range(count)]
        yield replicas, await stack.enter_async_context(calling(replicas))


@asynccontextmanager
async def calling(
    replicas: Sequence[Replica], target: str | None = None, *, client_balancing: bool = True
) -> AsyncIterator[Dependency]:
    addresses = f"ipv4:{','.join(replica.address for replica in replicas)}"
    dependency = Dependency("query_encoder", SERVICE, target or addresses, client_balancing=client_balancing)
    # Until all are connected, those that are get everything.
    await eventually(lambda: call_all(dependency, replicas))
    for replica in replicas:
        replica.calls = 0
    yield dependency
    await dependency.close()


async def call_all(dependency: Dependency, replicas: Sequence[Replica]) -> bool:
    before = [replica.calls for replica in replicas]
    assert set(await call(dependency, len(replicas))) == {"OK"}
    return all(replica.calls > had for replica, had in zip(replicas, before, strict=True))


async def call(dependency: Dependency, times: int, timeout_s: float = 2.0) -> Counter[str]:
    """What came of `times` calls, one after another."""
    stub = query_encoder_pb2_grpc.QueryEncoderStub(dependency.channel)
    outcomes: Counter[str] = Counter()
    for _ in range(times):
        try:
            await dependency.call(stub.EncodeQueries, Request(queries=["x"]), timeout_s=timeout_s)
            outcomes["OK"] += 1
        except AisleError as error:
            outcomes[type(error).__name__] += 1
    return outcomes


async def eventually(holds: Callable[[], Awaitable[bool]], within_s: float = 5.0) -> None:
    until = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < until, "did not happen in time"
        await asyncio.sleep(0.01)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(balancing._OUTLIERS, "interval", f"{INTERVAL_S}s")


async def test_every_replica_gets_its_share() -> None:
    async with shop() as (replicas, dependency):
        assert await call(dependency, 30) == {"OK": 30}
        assert [replica.calls for replica in replicas] == [10, 10, 10]


async def test_one_that_ends_gets_nothing_more_and_its_callers_do_not_notice() -> None:
    async with shop() as (replicas, dependency):
        started = time.monotonic()
        assert set(await while_ending(replicas[1], dependency)) == {"OK"}
        assert time.monotonic() - started < 5, "who watches its health must not hold a replica that ends"
        replicas[1].calls = 0
        assert await call(dependency, 30) == {"OK": 30}
        assert replicas[1].calls == 0


async def while_ending(replica: Replica, dependency: Dependency) -> Counter[str]:
    """What came of calls that are made, eight at a time, while `replica` ends."""
    settings = ServiceSettings(port=0, metrics_port=0, drain_delay_s=0.1, grace_s=10)
    ending = asyncio.create_task(drain(settings, replica.server, replica.monitor))
    outcomes: Counter[str] = Counter()
    while not ending.done():
        for told in await asyncio.gather(*(call(dependency, 3) for _ in range(8))):
            outcomes += told
    await ending
    return outcomes


async def test_one_that_says_it_does_not_serve_gets_nothing_until_it_does() -> None:
    async with shop() as (replicas, dependency):
        replicas[0].why = "stalled"
        await replicas[0].monitor.look()

        async def left_out() -> bool:
            replicas[0].calls = 0
            assert await call(dependency, 6) == {"OK": 6}
            return replicas[0].calls == 0

        await eventually(left_out)
        replicas[0].why = None
        await replicas[0].monitor.look()
        await eventually(lambda: call_all(dependency, replicas))


async def test_connections_that_grow_old_are_replaced_unnoticed() -> None:
    young = [("grpc.max_connection_age_ms", 200), ("grpc.max_connection_age_grace_ms", 2000)]
    async with shop(options=young) as (replicas, dependency):
        until = time.monotonic() + 1.5
        outcomes: Counter[str] = Counter()
        while time.monotonic() < until:
            outcomes += await call(dependency, 10)
        assert set(outcomes) == {"OK"}
        assert all(replica.calls > 0 for replica in replicas)


@pytest.mark.parametrize("count", [1, 2])
async def test_replicas_that_are_replaced_are_found_by_their_name(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rolling update does: a pod that is ready joins the name, then one that goes leaves it, drains and ends."""
    sooner = [(name, 100 if name == "grpc.dns_min_time_between_resolutions_ms" else value) for name, value in OPTIONS]
    monkeypatch.setattr(client, "_OPTIONS", sooner)
    hosts = [f"127.0.0.{number}" for number in range(2, 2 + 2 * count)]
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(serving(f"{hosts[0]}:0"))]
        port = replicas[0].address.partition(":")[2]
        replicas += [await stack.enter_async_context(serving(f"{host}:{port}")) for host in hosts[1:]]
        told, at = await stack.enter_async_context(names(hosts[:count]))
        target = f"dns://{at}/replicas.test:{port}"
        dependency = await stack.enter_async_context(calling(replicas[:count], target))
        for leaves, joins in zip(replicas[:count], replicas[count:], strict=True):
            told.addresses = [*told.addresses[1:], joins.address.partition(":")[0]]
            assert set(await while_ending(leaves, dependency)) == {"OK"}
            await eventually(lambda joins=joins: call_all(dependency, [joins]))  # type: ignore[misc]
        assert await call(dependency, 20) == {"OK": 20}
        assert told.asked > count


async def test_without_their_store_replicas_keep_their_calls_and_say_why_they_fail() -> None:
    async with shop(2, shared_fate=True) as (replicas, dependency):
        for replica in replicas:
            replica.why = "the store is away"
            replica.fails_with(UnavailableError("milvus", "the store is away"))
            await replica.monitor.look()
        stub = query_encoder_pb2_grpc.QueryEncoderStub(dependency.channel)
        for _ in range(4):
            with pytest.raises(UnavailableError, match="the store is away"):
                await dependency.call(stub.EncodeQueries, Request(queries=["x"]), timeout_s=2)


async def test_a_call_that_one_refuses_is_answered_by_another() -> None:
    async with shop() as (replicas, dependency):
        replicas[2].fails_with(UnavailableError("model"))
        assert await call(dependency, 30) == {"OK": 30}
        assert replicas[2].calls >= 9


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [InternalError("broken"), OverloadedError("always full")], ids=["broken", "full"])
async def test_one_that_fails_everything_is_left_out(error: AisleError) -> None:
    async with shop() as (replicas, dependency):
        replicas[1].fails_with(error)
        await eventually(lambda: all_well(dependency, replicas[1]))


@pytest.mark.usefixtures("quick")
async def test_one_that_hangs_is_left_out() -> None:
    async with shop() as (replicas, dependency):
        replicas[1].scripted.behaviour = replicas[1].hangs
        await eventually(lambda: all_well(dependency, replicas[1], timeout_s=0.02))


async def all_well(dependency: Dependency, broken: Replica, timeout_s: float = 1.0) -> bool:
    before = broken.calls
    outcomes = await call(dependency, 15, timeout_s)
    return outcomes == {"OK": 15} and broken.calls == before


@pytest.mark.usefixtures("quick")
async def test_one_that_refuses_a_part_of_its_work_keeps_getting_the_rest() -> None:
    async with shop() as (replicas, dependency):

        async def mostly_full(request: Any, context: Any) -> Response:
            replicas[1].calls += 1
            if replicas[1].calls % 5:
                raise OverloadedError("full")
            return Response()

        replicas[1].scripted.behaviour = mostly_full
        until = time.monotonic() + 4 * INTERVAL_S
        while time.monotonic() < until:
            await call(dependency, 15)
        before = replicas[1].calls
        await call(dependency, 15)
        assert replicas[1].calls == before + 5


@pytest.mark.usefixtures("quick")
async def test_where_all_fail_alike_most_are_kept() -> None:
    async with shop() as (replicas, dependency):
        for replica in replicas:
            replica.fails_with(InternalError("all broken"))

        async def one_is_left_out() -> bool:
            for replica in replicas:
                replica.calls = 0
            await call(dependency, 30)
            return sorted(replica.calls for replica in replicas) == [0, 15, 15]

        await eventually(one_is_left_out)
        await asyncio.sleep(2 * INTERVAL_S)
        assert await one_is_left_out()


async def test_where_a_proxy_balances_the_channel_neither_watches_nor_retries() -> None:
    async with shop(1) as (replicas, _):
        replica = replicas[0]
        async with calling(replicas, client_balancing=False) as dependency:
            await replica.monitor.drain()
            assert await call(dependency, 3) == {"OK": 3}
            replica.fails_with(UnavailableError("model"))
            replica.calls = 0
            assert await call(dependency, 1) == {"UnavailableError": 1}
            assert replica.calls == 1


@pytest.mark.parametrize("error", [OverloadedError("full"), InternalError("broken")], ids=["full", "broken"])
async def test_what_ran_or_was_refused_for_its_amount_is_not_tried_again(error: AisleError) -> None:
    async with shop() as (replicas, dependency):
        for replica in replicas:
            replica.fails_with(error)
        await call(dependency, 3)
        assert sum(replica.calls for replica in replicas) == 3


async def test_retries_stop_where_nothing_else_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(balancing._THROTTLING, "maxTokens", 10)
    async with shop(2) as (replicas, dependency):
        for replica in replicas:
            replica.fails_with(UnavailableError("model"))
        await call(dependency, 20)
        assert 20 < sum(replica.calls for replica in replicas) <= 20 + 5
