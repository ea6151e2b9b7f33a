"""Hard negatives out of a running `vector_retrieval`, filled with the vectors of the bundle that is trained on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.trainer.base import open_base
from services.trainer.errors import JobError
from services.trainer.evaluate.encode import open_encoder
from services.trainer.export import export
from services.trainer.finetune.data import read_judgements
from services.trainer.finetune.negatives import RANKS, found_negatives, retrieved
from services.trainer.options import ExportOptions
from services.trainer.parts import Parts
from services.trainer.prepared import PreparedSet
from services.trainer.rerank.data import searched_items
from services.trainer.rerank.options import RerankOptions
from services.trainer.rerank.train import finetune_reranker
from shared.bundles import Floors, Precision
from shared.rpc.embeddings import pack
from shared.rpc.items import item_to_proto
from tests.integration.vector_retrieval.processes import ServiceProcess, running
from tests.support.judged_shop import make_prepared

ANY = Floors(cosine_mean=0.9, cosine_min=0.8, overlap_at_10=0.0, ndcg_drop=1.0)


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedSet:
    return make_prepared(tmp_path)


@pytest.fixture
def bundle(tiny_base: Path, tmp_path: Path) -> str:
    export(ExportOptions(base=str(tiny_base), out=tmp_path / "bundle", floors=ANY))
    return str(tmp_path / "bundle")


@pytest.fixture
def index(prepared: PreparedSet, bundle: str, tmp_path: Path) -> Iterator[ServiceProcess]:
    items = list(prepared.items())
    encoder = open_encoder(bundle, Precision.FP32)
    vectors = encoder.items([encoder.item_text(item) for item in items])
    rows = pack(vectors, open_base(bundle).version)
    with running(str(tmp_path / "milvus.db"), tmp_path / "log") as service:
        answer = service.stub.UpsertItems(
            pb.UpsertItemsRequest(items=[item_to_proto(item) for item in items], embeddings=rows), timeout=30
        )
        assert not answer.errors
        yield service


@pytest.mark.parametrize("by_vectors", [True, False])
def test_search_gives_negatives_that_nobody_judged_good(
    index: ServiceProcess, prepared: PreparedSet, bundle: str, tiny_base: Path, by_vectors: bool
) -> None:
    grades, items = prepared.report.grades, {item.id for item in prepared.items()}
    judgements = read_judgements(prepared.split("train"), 3.0, 0, seed=0)
    encoder = open_encoder(bundle if by_vectors else str(tiny_base), Precision.INT8)
    target = f"127.0.0.1:{index.port}"
    found = retrieved(target, encoder, judgements)
    assert set(found) == set(judgements.queries)
    assert all(len(ids) == min(RANKS[1], len(items)) for ids in found.values()) or not by_vectors
    negatives = found_negatives(found, judgements, items, grades, seed=0)
    assert len(negatives) == len(judgements.positives)
    for row, negative in zip(judgements.positives, negatives, strict=True):
        assert negative in found[row.key]
        assert judgements.judged[row.key].get(negative, 0.0) < 1.5
    encoder.version = "another-version"
    with pytest.raises(JobError, match="--retrieval"):
        retrieved(target, encoder, judgements)


@pytest.mark.parametrize("by_vectors", [True, False])
def test_a_reranker_learns_from_what_search_finds(
    index: ServiceProcess, prepared: PreparedSet, bundle: str, tiny_base: Path, tmp_path: Path, by_vectors: bool
) -> None:
    target, known = f"127.0.0.1:{index.port}", {item.id for item in prepared.items()}
    judgements = read_judgements(prepared.split("train"), 3.0, 0, seed=0)
    retriever = open_encoder(bundle, Precision.INT8) if by_vectors else None
    parts = Parts(tmp_path / "parts")
    found = searched_items(judgements, target, retriever, known, 4, 0, parts)
    assert set(found) == set(judgements.queries)
    assert any(found.values())
    for key, ids in found.items():
        assert len(ids) <= 4
        assert set(ids) <= known - set(judgements.judged[key])
    # What was found is not asked for again.
    assert searched_items(judgements, target, retriever, known, 4, 0, parts) == found
    gone = searched_items(judgements, target, retriever, set(), 4, 0, parts)
    assert not any(gone.values())
    options = RerankOptions(
        data=prepared.path, out=tmp_path / "model", base=str(tiny_base), retrieval=target, batch=8, max_steps=2,
        retriever=bundle if by_vectors else "", max_pair_tokens=40, evaluations=1,
    )  # fmt: skip
    assert finetune_reranker(options).steps == 2
    with pytest.raises(JobError, match="the bundle that its index is of"):
        finetune_reranker(replace(options, retriever=str(tiny_base), out=tmp_path / "folder"))


def test_a_service_that_is_not_there_is_named(prepared: PreparedSet, bundle: str) -> None:
    judgements = read_judgements(prepared.split("train"), 3.0, 2, seed=0)
    with pytest.raises(JobError, match=r"--retrieval 127\.0\.0\.1:1: "):
        retrieved("127.0.0.1:1", open_encoder(bundle, Precision.INT8), judgements)
