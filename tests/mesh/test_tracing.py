"""One search, followed over every hop: the real processes, each sending its spans to a collector."""

from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest
from aisle.catalog.v1 import item_pb2
from aisle.gateway.v1 import gateway_pb2

from deploy.local.mesh import Mesh
from deploy.local.spec import KINDS, MeshSpec
from tests.mesh.conftest import TIMEOUT_S, Shop, load
from tests.support.collector import Collector, Received, collecting
from tests.support.default_model import need_default_model

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = (("traceparent", f"00-{TRACE}-{CALLER}-01"), ("x-request-id", "followed"))
HOPS = {
    "aisle.encoder.v1.QueryEncoder/EncodeQueries": "query_encoder",
    "aisle.events.v1.UserEvents/GetHistory": "user_events",
    "aisle.retrieval.v1.VectorRetrieval/Search": "vector_retrieval",
    "aisle.rerank.v1.Reranker/Rerank": "reranker",
}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    need_default_model()
    folder = tmp_path_factory.mktemp("traced")
    env = {
        kind.name: {
            f"{kind.prefix}OTLP_ENDPOINT": collector.endpoint,
            # Only what a test asks for: everything else is not sampled.
            f"{kind.prefix}TRACE_SAMPLE_RATIO": "0",
            f"{kind.prefix}LOG_LEVEL": "debug",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        for kind in KINDS
    }
    with Mesh(MeshSpec.on_free_ports(index=folder / "index" / "milvus.db", folder=folder, env=env)) as mesh:
        running = Shop(mesh)
        load(running, [item_pb2.Item(id=f"bed-{at}", title=f"Bunk bed number {at}") for at in range(5)])
        yield running
        running.close()


@pytest.fixture(scope="module")
def spans(traced: Shop, collector: Collector) -> list[Received]:
    """Of one search by a known shopper."""
    request = gateway_pb2.SearchRequest(query="bunk bed", user_id="shopper@example.com")
    assert len(traced.gateway.Search(request, timeout=TIMEOUT_S, metadata=SAMPLED).results) == 5

    def whole(found: list[Received]) -> bool:
        names = [one.name for one in found]
        return "aisle.gateway.v1.Gateway/Search" in names and all(names.count(hop) == 2 for hop in HOPS)

    return collector.wait(TRACE, whole)


def one(spans: list[Received], name: str, kind: str = "INTERNAL") -> Received:
    (found,) = [span for span in spans if (span.name, span.kind) == (name, kind)]
    return found


def test_the_trace_begins_with_the_caller(spans: list[Received]) -> None:
    front = one(spans, "aisle.gateway.v1.Gateway/Search", "SERVER")
    assert front.parent == CALLER
    assert front.attributes["aisle.request_id"] == "followed"


@pytest.mark.parametrize("hop", HOPS)
def test_every_hop_is_a_stage_a_call_and_its_serving(spans: list[Received], hop: str) -> None:
    serving, call = one(spans, hop, "SERVER"), one(spans, hop, "CLIENT")
    assert (call.service, serving.service) == ("gateway", HOPS[hop])
    assert serving.parent == call.id
    stage = next(span for span in spans if span.id == call.parent)
    assert (stage.service, stage.kind) == ("gateway", "INTERNAL")
    assert stage.parent == one(spans, "aisle.gateway.v1.Gateway/Search", "SERVER").id
    assert serving.attributes["rpc.response.status_code"] == "OK"


def test_batches_and_the_store_show_below_their_hops(spans: list[Received]) -> None:
    batch = one(spans, "query_encoder batch")
    assert batch.parent == one(spans, "aisle.encoder.v1.QueryEncoder/EncodeQueries", "SERVER").id
    assert [link.span_id.hex() for link in batch.span.links] == [batch.parent]
    assert batch.attributes["aisle.batch.items"] == 1
    assert any(span.name == "reranker batch" for span in spans)
    stored = [span for span in spans if span.name == "milvus search"]
    assert {span.parent for span in stored} == {one(spans, "aisle.retrieval.v1.VectorRetrieval/Search", "SERVER").id}


def test_no_span_tells_who_searched_or_for_what(spans: list[Received]) -> None:
    told = "".join(str(span.span) for span in spans).lower()
    assert "shopper" not in told
    assert "bunk" not in told


def test_every_log_line_of_the_search_has_its_ids(spans: list[Received], traced: Shop) -> None:
    for name in ("gateway", *HOPS.values()):
        log = traced.mesh.spec.log(traced.mesh.spec.service(name)).read_text().splitlines()
        lines = [line for line in log if '"request_id": "followed"' in line]
        assert lines, name
        assert all(f'"trace_id": "{TRACE}"' in line for line in lines)
        assert not [line for line in log if "shopper@" in line], "who searched stands nowhere, not at debug either"


def test_the_metrics_remember_the_trace(spans: list[Received], traced: Shop) -> None:
    url = traced.mesh.spec.service("gateway").metrics_url
    asked = Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    exemplars = [line for line in urlopen(asked).read().decode().splitlines() if f'# {{trace_id="{TRACE}"}}' in line]
    for name in ("grpc_server_handling_seconds_bucket", "aisle_gateway_stage_seconds_bucket"):
        assert any(line.startswith(name) for line in exemplars), name
    assert "trace_id" not in urlopen(url).read().decode()


def test_what_nobody_samples_is_not_sent(traced: Shop, collector: Collector) -> None:
    before = len(collector.spans)
    traced.search("bunk bed")
    assert len({span.trace for span in collector.spans[before:]} - {TRACE}) == 0
    assert {span.trace for span in collector.spans} == {TRACE}


def test_a_service_that_ends_sends_what_it_has(traced: Shop, collector: Collector) -> None:
    # The last test here: the gateway is gone after it.
    other = "1" * 32
    traced.gateway.Search(
        gateway_pb2.SearchRequest(query="bed"),
        timeout=TIMEOUT_S,
        metadata=(("traceparent", f"00-{other}-{CALLER}-01"),),
    )
    traced.mesh.stop_service("gateway")
    assert "aisle.gateway.v1.Gateway/Search" in {span.name for span in collector.trace(other)}
