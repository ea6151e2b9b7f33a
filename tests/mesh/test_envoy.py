"""A real Envoy before every service: mTLS, JSON and gRPC-Web, and replicas that are restarted, killed, broken, hung."""

import http.client
import json
import ssl
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from itertools import islice
from signal import SIGCONT, SIGSTOP
from typing import Any

import grpc
import pytest
from aisle.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from deploy.envoy import config, process
from deploy.local import scrape
from deploy.local.kinds import PROXY
from deploy.local.mesh import Mesh
from deploy.local.spec import MeshSpec
from shared.catalogue.generator import generate
from shared.rpc.items import item_to_proto
from shared.rpc.tls import channel_credentials, server_credentials
from tests.mesh import replicas
from tests.mesh.conftest import BUNK_BEDS, TIMEOUT_S, Shop, load, special_items
from tests.mesh.search_load import CALLERS, ITEMS, outcomes, say, share_degraded, told, under_load
from tests.mesh.test_mtls import encode
from tests.support.broken_service import broken
from tests.support.default_model import need_default_model
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(240),
    pytest.mark.skipif(process.program() is None, reason="there is no Envoy: run `make envoy`"),
]

REPLICAS = {"gateway": 2, "query_encoder": 3, "reranker": 2}
WATCHED_S = 5.0
"""Less than an ejection lasts (10), and more than finding out that a replica hangs."""
QUERY = "kids bunk bed with stairs"
_ENV = {
    # As in test_replicas: little to do, and time enough for it on a machine that starts models meanwhile.
    "gateway": {
        "AISLE_GATEWAY_RERANK_COUNT": "4",
        "AISLE_GATEWAY_ENCODE_CAP_S": "5",
        "AISLE_GATEWAY_RERANK_CAP_S": "5",
    },
    "query_encoder": {"AISLE_QUERY_ENCODER_THREADS": "1"},
    "reranker": {"AISLE_RERANKER_THREADS": "1"},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    need_default_model()
    folder = tmp_path_factory.mktemp("envoy")
    spec = MeshSpec.on_free_ports(
        index=folder / "index" / "milvus.db", folder=folder, env=_ENV, replicas=REPLICAS, mesh="envoy"
    )
    with Mesh(spec) as mesh:
        running = Shop(mesh)
        load(running, special_items() + [item_to_proto(item) for item in islice(generate(), ITEMS)])
        yield running
        running.close()


@pytest.fixture
def whole(shop: Shop) -> None:
    """Every replica runs and is given calls, whatever the test before did."""
    replicas.start_missing(shop)
    eventually(lambda: complete(shop), 60)


def admin(shop: Shop, path: str) -> Any:
    """What Envoy's admin interface says."""
    port = shop.mesh.spec.service(PROXY.name).metrics_port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return json.load(answer)


def stats(shop: Shop) -> dict[str, int]:
    """Envoy's counters and gauges."""
    told = admin(shop, "/stats?format=json")["stats"]
    return {one["name"]: one["value"] for one in told if isinstance(one.get("value"), int)}


def complete(shop: Shop) -> bool:
    """Whether Envoy gives calls to every replica."""
    told = stats(shop)
    return all(told[f"cluster.{kind}.membership_healthy"] == count for kind, count in REPLICAS.items())


def is_ejected(shop: Shop, name: str) -> bool:
    """Whether Envoy leaves out one replica for the errors that it has seen."""
    service = shop.mesh.spec.service(name)
    clusters = admin(shop, "/clusters?format=json")["cluster_statuses"]
    (told,) = (cluster for cluster in clusters if cluster["name"] == service.kind.name)
    return any(
        host["health_status"].get("failed_outlier_check", False)
        for host in told["host_statuses"]
        if host["address"]["socket_address"]["port_value"] == service.port
    )


def call_as(shop: Shop, name: str, address: str) -> Any:
    """One call of the query encoder at `address`, with the certificate of `name`."""
    identities = shop.mesh.spec.identities
    assert identities is not None
    credentials = channel_credentials(identities.files(name).read())
    with grpc.secure_channel(address, credentials) as channel:
        return encode(channel)


def post(shop: Shop, path: str, body: bytes, kind: str) -> tuple[int, bytes, str]:
    """What an HTTP client that knows nothing of gRPC is answered: status, body, issuer's serial of the certificate."""
    files = shop.mesh.spec.operator
    assert files is not None
    context = ssl.create_default_context(cafile=str(files.authority))
    context.load_cert_chain(files.certificate, files.key)
    connection = http.client.HTTPSConnection(shop.mesh.spec.target("gateway"), context=context, timeout=TIMEOUT_S)
    try:
        connection.connect()
        serial = connection.sock.getpeercert()["serialNumber"]  # type: ignore[union-attr]
        connection.request("POST", path, body, {"Content-Type": kind, "X-User-Agent": "test"})
        answer = connection.getresponse()
        return answer.status, answer.read(), serial
    finally:
        connection.close()


def test_its_configuration_is_valid(shop: Shop) -> None:
    written = config.write(shop.mesh.spec)
    checked = subprocess.run(
        [str(process.program()), "--mode", "validate", "-c", str(written)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_a_search_goes_through_it(shop: Shop) -> None:
    before = stats(shop)
    found = shop.search(QUERY, page_size=3)
    assert found.results[0].item.id in BUNK_BEDS
    assert not found.info.degraded
    after = stats(shop)
    for kind in ("gateway", "query_encoder", "vector_retrieval", "reranker"):
        name = f"cluster.{kind}.upstream_rq_completed"
        assert after[name] > before[name], f"{kind} was reached by another way"


@pytest.mark.parametrize("where", ["listener", "replica"])
def test_a_caller_in_plain_text_is_refused(shop: Shop, where: str) -> None:
    address = shop.mesh.spec.target("gateway") if where == "listener" else shop.mesh.address("gateway")
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
        gateway_pb2_grpc.GatewayStub(channel).Search(gateway_pb2.SearchRequest(query=QUERY), timeout=TIMEOUT_S)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_who_has_no_road_is_denied(shop: Shop) -> None:
    listener = shop.mesh.spec.target("query_encoder")
    assert call_as(shop, "gateway", listener).embeddings.dimensions > 0
    with pytest.raises(grpc.RpcError) as refused:
        call_as(shop, "reranker", listener)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_nobody_goes_round_it(shop: Shop) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call_as(shop, "gateway", shop.mesh.address("query_encoder"))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_json(shop: Shop) -> None:
    body = json.dumps({"query": QUERY, "pageSize": 2}).encode()
    status, answer, _ = post(shop, "/aisle.gateway.v1.Gateway/Search", body, "application/json")
    assert status == 200, answer
    found = json.loads(answer)
    assert len(found["results"]) == 2
    assert found["results"][0]["item"]["id"] in BUNK_BEDS
    assert found["info"]["requestId"]


def test_json_errors_name_the_field(shop: Shop) -> None:
    body = json.dumps({"query": QUERY, "pageSize": -1}).encode()
    status, answer, _ = post(shop, "/aisle.gateway.v1.Gateway/Search", body, "application/json")
    assert status == 400
    details = {detail["@type"].rpartition(".")[2]: detail for detail in json.loads(answer)["details"]}
    assert details["BadRequest"]["fieldViolations"][0]["field"] == "page_size"


def test_grpc_web(shop: Shop) -> None:
    request = gateway_pb2.SearchRequest(query=QUERY, page_size=2).SerializeToString()
    frame = struct.pack(">BI", 0, len(request)) + request
    status, answer, _ = post(shop, "/aisle.gateway.v1.Gateway/Search", frame, "application/grpc-web+proto")
    assert status == 200, answer
    frames = {}
    while answer:
        flag, size = struct.unpack(">BI", answer[:5])
        frames[flag], answer = answer[5 : 5 + size], answer[5 + size :]
    assert b"grpc-status:0" in frames[0x80].replace(b" ", b"")
    assert len(gateway_pb2.SearchResponse.FromString(frames[0]).results) == 2


def test_the_access_log_holds_calls_and_nothing_that_was_said(shop: Shop) -> None:
    shop.search("a phrase nobody else says", user_id="shopper-zoe")
    log = shop.mesh.spec.logs / "envoy-access.log"
    eventually(lambda: "/aisle.gateway.v1.Gateway/Search" in log.read_text(), 15)
    written = log.read_text()
    lines = [json.loads(line) for line in written.splitlines() if line.endswith("}")]
    (line, *_) = [line for line in lines if line["path"] == "/aisle.gateway.v1.Gateway/Search"]
    assert line["grpc_status"] == "OK"
    assert line["caller"] == "spiffe://aisle.local/operator"
    assert line["request_id"]
    assert not any(line["path"].startswith("/grpc.health.") for line in lines)
    assert "nobody else says" not in written
    assert "zoe" not in written


def test_prometheus_is_told_where_its_metrics_are(shop: Shop) -> None:
    targets = json.loads(scrape.path(shop.mesh.spec.folder).read_text())
    (envoy,) = [target for target in targets if target["labels"]["service"] == "envoy"]
    url = f"http://{envoy['targets'][0]}{envoy['labels']['__metrics_path__']}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert 'envoy_cluster_upstream_rq_total{envoy_cluster_name="query_encoder"}' in answer.read().decode()


def test_renewed_certificates_are_taken_up_without_a_failed_call(shop: Shop, whole: None) -> None:
    body = b'{"query": "lamp"}'
    _, _, before = post(shop, "/aisle.gateway.v1.Gateway/Search", body, "application/json")
    identities = shop.mesh.spec.identities
    assert identities is not None
    with under_load(shop) as load:
        eventually(lambda: len(load.answers) >= 20, 20)
        identities.issue()
        renewed = time.monotonic()
        eventually(lambda: post(shop, "/aisle.gateway.v1.Gateway/Search", body, "application/json")[2] != before, 15)
        eventually(lambda: len(load.since(renewed)) >= 60, 30)
    told("renewed", load.answers)
    assert set(outcomes(load.answers)) == {"whole"}


def test_a_rolling_restart_is_not_noticed(shop: Shop, whole: None) -> None:
    with under_load(shop) as load:
        # As whoever rolls waits for a replica to be ready for those who call it.
        replicas.restart_each(shop, lambda _: eventually(lambda: complete(shop), 15))
    told("rolling restart", load.answers)
    assert len(load.answers) > 100
    assert set(outcomes(load.answers)) == {"whole"}


def test_each_replica_killed_in_turn_costs_no_call(shop: Shop, whole: None) -> None:
    with under_load(shop) as load:
        replicas.kill_each(shop, load, lambda _: eventually(lambda: complete(shop), 15))
    told("each killed in turn", load.answers)
    assert set(outcomes(load.answers)) == {"whole"}


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE])
def test_a_replica_that_answers_with_errors_is_ejected(shop: Shop, whole: None, code: grpc.StatusCode) -> None:
    name = "query_encoder-3"
    identities = shop.mesh.spec.identities
    assert identities is not None
    shop.mesh.stop_service(name)
    credentials = server_credentials(identities.files("query_encoder"))
    with under_load(shop) as load, broken(shop.mesh.address(name), code, credentials) as failing:
        eventually(lambda: failing.calls > 0, 20)
        started = time.monotonic()
        eventually(lambda: is_ejected(shop, name), 20)
        assert stats(shop)["cluster.query_encoder.outlier_detection.ejections_active"] == 1
        # What was on its way when it was ejected.
        time.sleep(0.5)
        out, had = time.monotonic(), failing.calls
        time.sleep(WATCHED_S)
        after, still = load.since(out), failing.calls
    before = [answer for answer in load.since(started) if answer.at < out]
    told(f"{code.name}, {had} calls until it is ejected", before)
    told(f"{code.name}, afterwards", after)
    say(f"share degraded: {share_degraded(before):.1%} before, {share_degraded(after):.1%} after")
    assert not any(answer.failed for answer in load.answers)
    assert set(outcomes(after)) == {"whole"}
    assert still == had
    if code is grpc.StatusCode.INTERNAL:
        assert share_degraded(before) > 0, "a test of nothing: it was never asked"


def test_a_replica_that_hangs_is_left_out(shop: Shop, whole: None) -> None:
    name = "query_encoder-2"
    with under_load(shop) as load:
        eventually(lambda: len(load.answers) >= 20, 20)
        shop.mesh.signal(name, SIGSTOP)
        started = time.monotonic()
        try:
            time.sleep(WATCHED_S)
            out = time.monotonic()
            eventually(lambda: len(load.since(out)) >= 60, 20)
            after = load.since(out)
        finally:
            shop.mesh.signal(name, SIGCONT)
    before = [answer for answer in load.since(started) if answer.at < out]
    told("hung, until it is left out", before)
    told("hung, afterwards", after)
    assert set(outcomes(load.answers)) == {"whole"}, "what hangs is asked of another, within the deadline"
    # Tries that wait for a second are those that had been given to it, and no others.
    assert sum(answer.seconds > 1 for answer in before) <= 3 * CALLERS


def test_a_replica_that_is_slow_gets_fewer_calls(shop: Shop, whole: None) -> None:
    slow, *others = replicas.encoded_while_slow(shop).values()
    assert slow < 0.8 * min(others)
