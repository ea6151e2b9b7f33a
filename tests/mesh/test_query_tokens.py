"""A search runs its query through the model once: what the encoder saw of it is what the re-ranker reads."""

import urllib.request
from collections.abc import Iterator
from itertools import islice
from typing import Any

import grpc
import pytest
from aisle.common.v1 import embeddings_pb2
from aisle.encoder.v1 import query_encoder_pb2
from aisle.rerank.v1 import reranker_pb2
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.mesh import Mesh
from deploy.local.spec import MeshSpec
from shared.catalogue.generator import generate
from shared.rpc.items import item_to_proto
from tests.mesh.conftest import TIMEOUT_S, Shop, load
from tests.support.default_model import need_default_model
from tests.support.waiting import eventually

QUERY = "kids bunk bed with stairs"
CLOSE = 2e-4
"""What float16 takes from a score, at most: several times what was seen."""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def uncached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop whose query encoder remembers nothing."""
    need_default_model()
    folder = tmp_path_factory.mktemp("uncached")
    env = {"query_encoder": {"AISLE_QUERY_ENCODER_CACHE_BYTES": "0"}}
    with Mesh(MeshSpec.on_free_ports(index=folder / "index" / "milvus.db", folder=folder, env=env)) as mesh:
        running = Shop(mesh)
        load(running, [item_to_proto(item) for item in islice(generate(), 60)])
        yield running
        running.close()


def run(shop: Shop, name: str) -> tuple[float, float]:
    """Forward passes of a service and the tokens they ran, since it was started."""
    with urllib.request.urlopen(shop.mesh.spec.service(name).metrics_url, timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [sample for family in families for sample in family.samples]
    passes, tokens = (
        sum(sample.value for sample in samples if sample.name == name)
        for name in ("aisle_engine_batch_items_count", "aisle_engine_tokens_total")
    )
    return passes, tokens


def rerank_scores(response: Any) -> dict[str, float]:
    return {
        result.item.id: result.breakdown.rerank_score
        for result in response.results
        if result.breakdown.HasField("rerank_score")
    }


def test_a_search_for_known_items_runs_no_forward_pass_of_the_reranker(uncached: Shop) -> None:
    # On busy cores the first search leaves items unscored, which the next must encode.
    eventually(lambda: not uncached.search(QUERY, page_size=60).info.degraded, 30)
    first = uncached.search(QUERY, explain=True, page_size=60)
    reranker, encoder = run(uncached, "reranker"), run(uncached, "query_encoder")
    again = uncached.search(QUERY, explain=True, page_size=60)
    assert run(uncached, "reranker") == reranker
    assert run(uncached, "query_encoder") > encoder
    assert not first.info.degraded
    assert not again.info.degraded
    assert again.info.model_versions.reranker == first.info.model_versions.reranker
    before, after = rerank_scores(first), rerank_scores(again)
    assert len(before) > 1
    assert after == pytest.approx(before, abs=CLOSE)


def test_both_services_speak_of_the_same_vectors(uncached: Shop) -> None:
    request = query_encoder_pb2.EncodeQueriesRequest(queries=[QUERY], include_token_embeddings=True)
    (tokens,) = uncached.query_encoder.EncodeQueries(request, timeout=TIMEOUT_S).token_embeddings
    items = [item_to_proto(item) for item in islice(generate(), 20)]

    def scores(given: embeddings_pb2.Embeddings | None) -> list[float]:
        request = reranker_pb2.RerankRequest(query=QUERY, items=items, query_token_embeddings=given)
        return [score.score for score in uncached.reranker.Rerank(request, timeout=TIMEOUT_S).scores]

    read = scores(None)
    assert scores(tokens) == pytest.approx(read, abs=CLOSE)
    tokens.data = tokens.data[:-1]
    with pytest.raises(grpc.RpcError) as refused:
        scores(tokens)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    tokens.model_version = "another"
    assert scores(tokens) == pytest.approx(read, abs=CLOSE)
