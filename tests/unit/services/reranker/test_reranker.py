"""`Reranker` as a client sees it, with either kind of bundle."""

from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.common.v1 import model_pb2
from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc

from services.reranker.__main__ import build
from services.reranker.settings import RerankerSettings
from shared.bundles import Bundle, BundleKind
from shared.inference import BackendName
from tests.support.tiny_bundle import make_bundle
from tests.unit.services.conftest import Serve

Stub: TypeAlias = "reranker_pb2_grpc.RerankerAsyncStub"
Request = reranker_pb2.RerankRequest


@pytest.fixture(params=[BundleKind.BI_ENCODER, BundleKind.CROSS_ENCODER])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", request.param)


@pytest.fixture
async def reranker(serve: Serve, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Stub:
    settings = RerankerSettings(bundle=str(bundle.path), backend=BackendName.DUMMY)
    return reranker_pb2_grpc.RerankerStub(await serve(build, settings))


def items(*titles: str) -> list[item_pb2.Item]:
    return [item_pb2.Item(id=str(at), title=title) for at, title in enumerate(titles)]


async def test_one_score_an_item_in_order_and_equal_items_score_equally(reranker: Stub, bundle: Bundle) -> None:
    response = await reranker.Rerank(Request(query="red lamp", items=items("red lamp", "blue chair", "red lamp")))
    first, second, third = (score.score for score in response.scores)
    assert first == pytest.approx(third, abs=1e-5)
    assert first != pytest.approx(second, abs=1e-3)
    assert (response.model_version, response.unscored) == (bundle.version, 0)


async def test_the_best_match_scores_best_by_late_interaction(reranker: Stub, bundle: Bundle) -> None:
    if bundle.manifest.kind is not BundleKind.BI_ENCODER:
        pytest.skip("a dummy cross-encoder's scores mean nothing")
    response = await reranker.Rerank(Request(query="red lamp", items=items("oak table", "red lamp", "red vase")))
    scores = [score.score for score in response.scores]
    assert scores[1] == pytest.approx(1, abs=2e-3)
    assert scores[1] > max(scores[0], scores[2])


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request(query=" ", items=items("a")), "query"),
        (Request(query="x" * 2001, items=items("a")), "query"),
        (Request(query="lamp"), "items"),
        (Request(query="lamp", items=items("a") * 1001), "items"),
        (Request(query="lamp", items=items("a"), priority=9), "priority"),  # type: ignore[arg-type]
    ],
)
async def test_a_bad_request_names_its_field(reranker: Stub, request_: Request, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await reranker.Rerank(request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (refused.value.details() or "").startswith(f"{field}:")


async def test_get_model_names_the_kind(reranker: Stub, bundle: Bundle) -> None:
    model = (await reranker.GetModel(model_pb2.GetModelRequest())).model
    cross = bundle.manifest.kind is BundleKind.CROSS_ENCODER
    assert model.kind == ("cross-encoder" if cross else "late-interaction")
