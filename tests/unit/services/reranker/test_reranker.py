"""`Reranker` as a client sees it, with either kind of bundle."""

from pathlib import Path
from typing import TypeAlias

import grpc
import numpy as np
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.common.v1 import embeddings_pb2, model_pb2
from aisle.encoder.v1 import query_encoder_pb2, query_encoder_pb2_grpc
from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc

from services.query_encoder.__main__ import build as build_query_encoder
from services.query_encoder.settings import QueryEncoderSettings
from services.reranker.__main__ import build
from services.reranker.settings import RerankerSettings
from shared.bundles import Bundle, BundleKind
from shared.inference import BackendName
from shared.rpc.embeddings import pack
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


ITEMS = items("oak table", "red lamp", "red vase")


async def values(reranker: Stub, query: str, given: embeddings_pb2.Embeddings | None = None) -> list[float]:
    response = await reranker.Rerank(Request(query=query, items=ITEMS, query_token_embeddings=given))
    return [score.score for score in response.scores]


@pytest.fixture
async def encoded(serve: Serve, tmp_path: Path) -> embeddings_pb2.Embeddings:
    """ "red lamp" as the query encoder has it."""
    twin = make_bundle(tmp_path / "twin", BundleKind.BI_ENCODER)
    settings = QueryEncoderSettings(bundle=str(twin.path), backend=BackendName.DUMMY)
    encoder = query_encoder_pb2_grpc.QueryEncoderStub(await serve(build_query_encoder, settings))
    request = query_encoder_pb2.EncodeQueriesRequest(queries=["red lamp"], include_token_embeddings=True)
    return (await encoder.EncodeQueries(request)).token_embeddings[0]


async def test_late_interaction_takes_the_query_encoders_vectors_and_scores_the_same(
    reranker: Stub, bundle: Bundle, encoded: embeddings_pb2.Embeddings
) -> None:
    read = await values(reranker, "red lamp")
    assert await values(reranker, "red lamp", encoded) == pytest.approx(read, abs=2e-4)
    # Whose vectors were read shows where they are not those of the words.
    late = bundle.manifest.kind is BundleKind.BI_ENCODER
    other = await values(reranker, "blue chair")
    assert other != pytest.approx(read, abs=1e-2)
    assert await values(reranker, "blue chair", encoded) == pytest.approx(read if late else other, abs=2e-4)


async def test_vectors_of_another_model_are_ignored_whatever_they_are(
    reranker: Stub, encoded: embeddings_pb2.Embeddings
) -> None:
    other = await values(reranker, "blue chair")
    encoded.model_version = "another"
    assert await values(reranker, "blue chair", encoded) == pytest.approx(other, abs=1e-6)
    assert await values(reranker, "blue chair", pack(np.full((99, 3), np.nan, np.float32), "another")) == (
        pytest.approx(other, abs=1e-6)
    )
    assert await values(reranker, "blue chair", embeddings_pb2.Embeddings()) == pytest.approx(other, abs=1e-6)


UNIT = np.eye(8, dtype=np.float32)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (pack(UNIT[:, :4], ""), "dimensions"),
        (pack(UNIT[:1], ""), "data"),
        (pack(np.tile(UNIT, (3, 1)), ""), "data"),
        (pack(UNIT * 2, ""), "data"),
        (pack(UNIT * np.nan, ""), "data"),
        (embeddings_pb2.Embeddings(data=bytes(33), dimensions=8, dtype=embeddings_pb2.DTYPE_FLOAT32), "data"),
        (embeddings_pb2.Embeddings(data=bytes(64), dimensions=8), "dtype"),
        (embeddings_pb2.Embeddings(), "dtype"),
    ],
)
async def test_bad_vectors_of_its_own_model_are_refused_by_late_interaction(
    reranker: Stub, bundle: Bundle, given: embeddings_pb2.Embeddings, field: str
) -> None:
    sent = embeddings_pb2.Embeddings()
    sent.CopyFrom(given)
    sent.model_version = bundle.version
    if bundle.manifest.kind is BundleKind.CROSS_ENCODER:
        assert len(await values(reranker, "red lamp", sent)) == 3
        return
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await values(reranker, "red lamp", sent)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (refused.value.details() or "").startswith(f"query_token_embeddings.{field}:")


async def test_get_model_names_the_kind(reranker: Stub, bundle: Bundle) -> None:
    model = (await reranker.GetModel(model_pb2.GetModelRequest())).model
    cross = bundle.manifest.kind is BundleKind.CROSS_ENCODER
    assert model.kind == ("cross-encoder" if cross else "late-interaction")
