"""Every panel and every alert, asked of a real Prometheus that reads the running mesh under some load."""

import math
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice

import grpc
import pytest
from aisle.events.v1 import event_pb2, user_events_pb2
from aisle.gateway.v1 import gateway_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2

from deploy.grafana.boards import BOARDS, LITE
from deploy.grafana.panel import Panel
from deploy.local.mesh import Mesh
from deploy.local.spec import MeshSpec
from shared.catalogue.generator import generate
from shared.rpc.items import item_to_proto
from tests.integration.vector_retrieval.servers import MilvusServer, installed
from tests.mesh.conftest import GENERATED, TIMEOUT_S, Shop, load, special_items
from tests.support.default_model import need_default_model
from tests.support.prometheus import Prometheus, program, reading

pytestmark = pytest.mark.timeout(180)

PANELS = [pytest.param(panel, id=f"{board.uid}: {panel.title}") for board in BOARDS for panel in board.panels]
ROUNDS_S = 12.0
WINDOW = "1m"


def use(shop: Shop, user: str) -> None:
    """One round of what shoppers and the shop do."""
    found = shop.search("kids bunk bed with stairs", user_id=user)
    shop.search(f"a query that nobody sent before {uuid.uuid4().hex}")
    shop.gateway.SimilarItems(gateway_pb2.SimilarItemsRequest(item_id="bunk-1"), timeout=TIMEOUT_S)
    shop.gateway.Recommend(gateway_pb2.RecommendRequest(user_id=user), timeout=TIMEOUT_S)
    item = found.results[0].item.id
    click = event_pb2.Event(
        id=uuid.uuid4().hex,
        type=event_pb2.EVENT_TYPE_CLICK,
        user_id=user,
        item_id=item,
        attribution_token=found.info.attribution_token,
    )
    shown = event_pb2.Event(
        id=uuid.uuid4().hex,
        type=event_pb2.EVENT_TYPE_IMPRESSION,
        user_id=user,
        item_ids=[result.item.id for result in found.results],
        attribution_token=found.info.attribution_token,
    )
    shop.user_events.WriteEvents(user_events_pb2.WriteEventsRequest(events=[click, shown]), timeout=TIMEOUT_S)
    load(shop, special_items())
    with pytest.raises(grpc.RpcError):
        shop.search("")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Over a Milvus server where there is one, whose own metrics are shown too."""
    need_default_model()
    folder = tmp_path_factory.mktemp("dashboards")
    spec = MeshSpec.on_free_ports(index=folder / "index" / "milvus.db", folder=folder)
    with ExitStack() as stack:
        if installed():
            milvus = MilvusServer(folder / "milvus")
            stack.callback(milvus.end)
            milvus.start()
            told = {"AISLE_VECTOR_RETRIEVAL_URI": milvus.uri, "MILVUS_METRICS": f"127.0.0.1:{milvus.metrics_port}"}
            spec = replace(spec, environ={**spec.environ, **told})
        running = Shop(stack.enter_context(Mesh(spec)))
        stack.callback(running.close)
        load(running, special_items() + [item_to_proto(item) for item in islice(generate(), GENERATED)])
        yield running


@pytest.fixture(scope="module")
def prometheus(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    if program("prometheus") is None:
        pytest.skip("no Prometheus on this machine: run `make prometheus`")
    live = shop.retrieval.GetStatus(vector_retrieval_pb2.GetStatusRequest(), timeout=TIMEOUT_S).generation
    verify = vector_retrieval_pb2.VerifyGenerationRequest(generation=live)
    with reading(shop.mesh.spec, tmp_path_factory.mktemp("prometheus")) as running:
        shop.retrieval.VerifyGeneration(verify, timeout=60)
        until = time.monotonic() + ROUNDS_S
        while time.monotonic() < until:
            use(shop, "dashboards")
        yield running


def values(prometheus: Prometheus, panel: Panel) -> list[float]:
    found = prometheus.query(panel.query.replace("$__rate_interval", WINDOW))
    return [value for sample in found if not math.isnan(value := float(sample["value"][1]))]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_shows_something(prometheus: Prometheus, shop: Shop, panel: Panel) -> None:
    # Where nothing is to be shown on a healthy mesh, the panel says why, and its query is only asked.
    excused = panel.empty and not (panel.empty == LITE and shop.mesh.spec.milvus_metrics)
    assert values(prometheus, panel) or excused


def test_shares_are_shares(prometheus: Prometheus) -> None:
    for board in BOARDS:
        for panel in board.panels:
            if panel.unit == "percentunit" and "Budget" not in panel.title:
                shares = values(prometheus, panel)
                assert all(0 <= share <= 1 for share in shares), (panel.title, shares)


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    rules = prometheus.rules()
    assert len([rule for rule in rules if rule["type"] == "alerting"]) == 14
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []
