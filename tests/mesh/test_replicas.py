"""Several processes of a service behind one gateway, nothing between: restarted, killed, broken and hung under load."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from signal import SIGCONT, SIGSTOP

import grpc
import pytest

from deploy.local.mesh import Mesh
from deploy.local.spec import MeshSpec
from shared.catalogue.generator import generate
from shared.rpc.items import item_to_proto
from tests.mesh import replicas
from tests.mesh.conftest import Shop, load
from tests.mesh.replicas import calls, is_given_calls
from tests.mesh.search_load import CALLERS, ITEMS, Answer, Load, outcomes, say, share_degraded, told, under_load
from tests.support.broken_service import broken
from tests.support.default_model import need_default_model
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(240)

REPLICAS = {"gateway": 2, "query_encoder": 3, "reranker": 2}
EJECTED_S = 30.0
"""Two intervals of outlier detection are 4; a machine that makes hardly five calls a replica in one needs more."""
HUNG_S = 20.0
"""More than an ejection lasts, and than keepalive needs."""
ENOUGH = 20
"""Answers in a row, of which a replica that is not left out would have had several."""

_ENV: dict[str, dict[str, str]] = {
    # Little to re-rank, and all the time for it that a machine needs on which models start: what is late there says
    # nothing about balancing.
    "gateway": {
        "AISLE_GATEWAY_RERANK_COUNT": "4",
        "AISLE_GATEWAY_ENCODE_CAP_S": "5",
        "AISLE_GATEWAY_RERANK_CAP_S": "5",
    },
    **{name: {f"AISLE_{name.upper()}_THREADS": "1"} for name in ("query_encoder", "reranker")},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    need_default_model()
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
    replicas.start_missing(shop)
    with under_load(shop):
        for name in replicas.names(shop):
            is_given_calls(shop, name, within_s=30)


def test_each_replica_has_its_share(shop: Shop) -> None:
    before = {name: calls(shop, name) for name in replicas.names(shop)}
    with under_load(shop) as load:
        eventually(lambda: len(load.answers) >= 60, 30)
    assert set(outcomes(load.answers)) == {"whole"}
    for kind in REPLICAS:
        given = {s.name: calls(shop, s.name) - before[s.name] for s in shop.mesh.spec.replicas(kind)}
        say(f"{kind}: {given}")
        # Each that calls has a round of its own, which begins with those that it is connected to first.
        callers = CALLERS if kind == "gateway" else REPLICAS["gateway"]
        assert max(given.values()) - min(given.values()) <= 2 * callers, given


def test_a_rolling_restart_is_not_noticed(shop: Shop) -> None:
    with under_load(shop) as load:
        replicas.restart_each(shop, partial(is_given_calls, shop))
    told("rolling restart", load.answers)
    assert len(load.answers) > 100
    assert set(outcomes(load.answers)) == {"whole"}


def test_each_replica_killed_in_turn_costs_no_call(shop: Shop) -> None:
    with under_load(shop) as load:
        replicas.kill_each(shop, load, partial(is_given_calls, shop))
    told("each killed in turn", load.answers)
    assert set(outcomes(load.answers)) == {"whole"}


def test_a_replica_that_is_slow_costs_no_call(shop: Shop) -> None:
    given = replicas.encoded_while_slow(shop)
    # Nothing here looks at how long an answer takes: see docs/balancing.md.
    assert max(given.values()) - min(given.values()) <= 0.1 * replicas.ENCODED, given


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
        assert set(outcomes(load.answers)) == {"whole"}, "what one refuses is asked of another"
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
