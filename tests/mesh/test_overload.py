"""Far more searches at once than the gateway lets in: the others hear so, with a reason, and nothing else suffers."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc, gateway_pb2, gateway_pb2_grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.mesh import Mesh
from deploy.local.spec import MeshSpec
from shared.catalogue.generator import generate
from shared.rpc.items import item_to_proto
from shared.rpc.status import PUSHBACK_KEY
from tests.mesh.conftest import TIMEOUT_S, Shop, load
from tests.support.default_model import need_default_model
from tests.support.waiting import eventually

RUNNING, WAITING, CALLERS, FLOOD_S = 2, 2, 40, 3.0
AN_ITEM = next(iter(generate())).id
REASONS = {"QUEUE_FULL", "QUEUE_TIMEOUT"}

pytestmark = pytest.mark.timeout(180)


@dataclass
class Flood:
    """What its callers, and those beside them, got."""

    answers: list[Any] = field(default_factory=list)
    refusals: list[Any] = field(default_factory=list)
    beside: Counter[str] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    need_default_model()
    folder = tmp_path_factory.mktemp("narrow")
    # Without re-ranking: what is asked here is who is let in.
    settings = {"MAX_RUNNING": RUNNING, "MAX_WAITING": WAITING, "RERANK_COUNT": 0}
    env = {"gateway": {f"AISLE_GATEWAY_{name}": str(value) for name, value in settings.items()}}
    with Mesh(MeshSpec.on_free_ports(index=folder / "index" / "milvus.db", folder=folder, env=env)) as mesh:
        shop = Shop(mesh)
        load(shop, [item_to_proto(item) for item in islice(generate(), 60)])
        yield shop
        shop.close()


@pytest.fixture(scope="module")
def flood(narrow: Shop) -> Flood:
    return asyncio.run(_flooded(narrow))


async def _flooded(shop: Shop) -> Flood:
    found, until = Flood(), time.monotonic() + FLOOD_S
    async with grpc.aio.insecure_channel(shop.mesh.address("gateway")) as channel:
        gateway, catalog = gateway_pb2_grpc.GatewayStub(channel), catalog_pb2_grpc.CatalogStub(channel)
        health = health_pb2_grpc.HealthStub(channel)

        async def caller(number: int) -> None:
            while time.monotonic() < until:
                try:
                    request = gateway_pb2.SearchRequest(query=f"bunk bed {number}")
                    found.answers.append(await gateway.Search(request, timeout=TIMEOUT_S))
                except grpc.aio.AioRpcError as error:
                    found.refusals.append(error)
                    await asyncio.sleep(0.02)

        async def beside() -> None:
            while time.monotonic() < until:
                read = await catalog.GetItem(catalog_pb2.GetItemRequest(id=AN_ITEM), timeout=TIMEOUT_S)
                state = await health.Check(health_pb2.HealthCheckRequest(service=""), timeout=TIMEOUT_S)
                serving = state.status == health_pb2.HealthCheckResponse.SERVING
                found.beside.update({"read": read.item.id == AN_ITEM, "serving": serving, "asked": 1})
                await asyncio.sleep(0.1)

        await asyncio.gather(beside(), *(caller(number) for number in range(CALLERS)))
    return found


def test_those_let_in_are_answered(flood: Flood) -> None:
    assert len(flood.answers) > RUNNING
    assert all(answer.results for answer in flood.answers)


def test_every_refusal_has_a_reason_and_says_when_to_come_back(flood: Flood) -> None:
    assert flood.refusals
    for error in flood.refusals:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error.details()
        status = rpc_status.from_call(error)
        assert status is not None
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        assert any(detail.Unpack(info) for detail in status.details)
        assert info.reason in REASONS
        assert any(detail.Unpack(retry) for detail in status.details)
        trailers = dict(error.trailing_metadata())
        assert int(trailers[PUSHBACK_KEY]) == retry.retry_delay.ToMilliseconds() > 0


def test_health_and_cheap_calls_do_not_notice(flood: Flood) -> None:
    assert flood.beside["read"] == flood.beside["serving"] == flood.beside["asked"] > 0


def test_refusals_are_counted_by_reason(flood: Flood, narrow: Shop) -> None:
    text = urlopen(narrow.mesh.spec.service("gateway").metrics_url).read().decode()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    refused = [one for one in samples if one.name == "aisle_gateway_requests_refused_total"]
    assert sum(one.value for one in refused) == len(flood.refusals)
    assert {one.labels["reason"] for one in refused} == REASONS
    assert {one.name: one.value for one in samples if one.name.startswith("aisle_gateway_requests_")}.items() >= {
        ("aisle_gateway_requests_running", 0.0),
        ("aisle_gateway_requests_waiting", 0.0),
    }


def test_afterwards_it_is_as_before(flood: Flood, narrow: Shop) -> None:
    eventually(lambda: not narrow.search("bunk bed").info.degraded, 60)
