"""Several processes of a service behind one gateway, nothing between: restarted, killed, broken and hung under load."""

import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import islice
from signal import SIGCONT, SIGKILL, SIGSTOP

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.mesh import Mesh
from deploy.local.spec import DEFAULT_BUNDLE, MeshSpec
from shared.catalogue.generator import generate
from shared.rpc.items import item_to_proto
from tests.mesh.conftest import Shop, load
from tests.mesh.search_load import ITEMS, Answer, Load, outcomes, say, share_degraded, told, under_load
from tests.support.broken_service import broken
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)

REPLICAS = {"query_encoder": 3, "reranker": 2}
METHODS = {"query_encoder": "EncodeQueries", "reranker": "Rerank"}
EJECTED_S = 30.0
"""Two intervals of outlier detection are 4; a machine that makes hardly five calls a replica in one needs more."""
HUNG_S = 20.0
"""More than an ejection lasts, and than keepalive needs."""
ENOUGH = 20
"""Answers in a row, of which a replica that is not left out would have had several."""

_ENV = {
    # Little to re-rank, and all the time for it that a machine needs on which models start: what is late there says
    # nothing about balancing.
    "gateway": {
        "AISLE_GATEWAY_RERANK_COUNT": "4",
        "AISLE_GATEWAY_ENCODE_CAP_S": "5",
        "AISLE_GATEWAY_RERANK_CAP_S": "5",
    },
    **{name: {f"AISLE_{name.upper()}_THREADS": "1"} for name in REPLICAS},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    if not (DEFAULT_BUNDLE / "bundle.json").is_file():
        pytest.skip("there is no model bundle: run `make models`")
    folder = tmp_path_factory.mktemp("replicas")
    index = folder / "index" / "milvus.db"
    spec = MeshSpec.on_free_ports(index=index, folder=folder, env=_ENV, replicas=REPLICAS)
    with Mesh(spec) as mesh:
        running = Shop(mesh)
        load(running, [item_to_proto(item) for item in islice(generate(), ITEMS)])
        yield running
        running.close()


@pytest.fixture(autouse=True)
def whole(shop: Shop) -> None:
    """Every replica runs and is given calls, whatever the test before did."""
    for service in shop.mesh.spec.services:
        if not shop.mesh.runs(service.name):
            shop.mesh.stop_service(service.name)
            shop.mesh.start_service(service.name)
    with under_load(shop):
        for service in shop.mesh.spec.services:
            if service.kind.name in REPLICAS:
                is_given_calls(shop, service.name, within_s=30)


def calls(shop: Shop, name: str) -> float:
    """Calls that one replica has answered with OK since it was started, from its own metrics."""
    service = shop.mesh.spec.service(name)
    with urllib.request.urlopen(service.metrics_url, timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    wanted = {"grpc_method": METHODS[service.kind.name], "grpc_code": "OK"}
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "grpc_server_handled_total" and wanted.items() <= sample.labels.items()
    )


def is_given_calls(shop: Shop, name: str, within_s: float = 10.0) -> None:
    before = calls(shop, name)
    eventually(lambda: calls(shop, name) > before, within_s)


def test_each_replica_has_its_share(shop: Shop) -> None:
    names = {kind: [s.name for s in shop.mesh.spec.replicas(kind)] for kind in REPLICAS}
    before = {name: calls(shop, name) for kind in REPLICAS for name in names[kind]}
    with under_load(shop) as load:
        eventually(lambda: len(load.answers) >= 60, 30)
    assert set(outcomes(load.answers)) == {"whole"}
    for kind, replicas in REPLICAS.items():
        given = {name: calls(shop, name) - before[name] for name in names[kind]}
        fair = sum(given.values()) / replicas
        say(f"{kind}: {given}")
        assert all(abs(had - fair) <= 0.1 * fair + 1 for had in given.values()), given


def test_a_rolling_restart_is_not_noticed(shop: Shop) -> None:
    with under_load(shop) as load:
        for name in [s.name for kind in REPLICAS for s in shop.mesh.spec.replicas(kind)]:
            started = time.monotonic()
            shop.mesh.stop_service(name)
            stopped = time.monotonic()
            shop.mesh.start_service(name)
            is_given_calls(shop, name)
            ready = time.monotonic() - stopped
            say(f"{name}: {stopped - started:.1f} s to drain and end, {ready:.1f} s until it had calls again")
            assert stopped - started < 8, "nothing that runs takes so long, and grace is 10"
    told("rolling restart", load.answers)
    assert len(load.answers) > 100
    assert set(outcomes(load.answers)) == {"whole"}


@pytest.mark.parametrize("name", ["query_encoder-2", "reranker"])
def test_a_replica_that_is_killed_costs_no_call(shop: Shop, name: str) -> None:
    with under_load(shop) as load:
        eventually(lambda: len(load.answers) >= 20, 20)
        shop.mesh.signal(name, SIGKILL)
        eventually(lambda: not shop.mesh.runs(name), 5)
        killed = time.monotonic()
        eventually(lambda: len(load.since(killed)) >= 60, 30)
        shop.mesh.stop_service(name)
        shop.mesh.start_service(name)
        is_given_calls(shop, name)
    told(f"{name} killed", load.answers)
    assert set(outcomes(load.answers)) == {"whole"}


def until_whole(load: Load, asked: Callable[[], int]) -> tuple[list[Answer], list[Answer]]:
    """What was answered until one replica is left out, and then: `asked` is how often that one was asked so far."""
    started = time.monotonic()
    while True:
        mark, had = time.monotonic(), asked()
        eventually(lambda: len(load.since(mark)) >= ENOUGH, 30)  # noqa: B023
        after = load.since(mark)
        if set(outcomes(after)) == {"whole"} and asked() == had:
            return [answer for answer in load.since(started) if answer.at < mark], after
        assert mark - started < EJECTED_S, outcomes(load.since(started))


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE])
def test_a_replica_that_answers_with_errors_is_left_out(shop: Shop, code: grpc.StatusCode) -> None:
    name = "query_encoder-3"
    shop.mesh.stop_service(name)
    with under_load(shop) as load, broken(shop.mesh.address(name), code) as failing:
        eventually(lambda: failing.calls > 0, 10)
        before, after = until_whole(load, lambda: failing.calls)
    told(f"{code.name}, {failing.calls} calls until it is left out", before)
    told(f"{code.name}, afterwards", after)
    assert not any(answer.failed for answer in load.answers)
    if code is grpc.StatusCode.UNAVAILABLE:
        # All tries of a call may happen to be that one's turn, though rarely.
        assert share_degraded(load.answers) < 0.1, "what one refuses is asked of another"
    else:
        assert 0 < share_degraded(before) < 1
    assert share_degraded(after) == 0


def test_a_replica_that_hangs_is_left_out_and_nothing_fails(shop: Shop) -> None:
    name = "query_encoder-2"
    with under_load(shop, timeout_s=1.0) as load:
        eventually(lambda: len(load.answers) >= ENOUGH, 20)
        shop.mesh.signal(name, SIGSTOP)
        try:
            before, after = until_whole(load, lambda: 0)
            left_out = time.monotonic()
            # It is tried again, and its connection is given up by then.
            time.sleep(HUNG_S)
            late = load.since(left_out)
        finally:
            shop.mesh.signal(name, SIGCONT)
        is_given_calls(shop, name, within_s=30)
    told("hung, until it is left out", before)
    told("hung, afterwards", after)
    told(f"hung, {HUNG_S:.0f} s more", late)
    assert not any(answer.failed for answer in load.answers)
    assert share_degraded(before) > 0
    assert share_degraded(late) < share_degraded(before) / 2
