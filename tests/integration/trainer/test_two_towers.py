"""Queries with weights of their own, from judgements to the services: each reads by its tower, and no other."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc, query_encoder_pb2, query_encoder_pb2_grpc

from services.trainer.base import open_base
from services.trainer.errors import JobError
from services.trainer.evaluate.encode import open_encoder
from services.trainer.export import export
from services.trainer.finetune.options import FinetuneOptions
from services.trainer.finetune.train import finetune
from services.trainer.options import ExportOptions
from services.trainer.pretrain.options import PretrainOptions
from services.trainer.pretrain.train import pretrain
from services.trainer.retrain.average import average
from shared.bundles import Bundle, BundleKind, Floors, Precision, Tower, load_bundle
from shared.inference import BackendName, Batcher, BiEncoder, open_backend, open_scorer
from shared.inference.tokens import Tokens
from shared.items import Item
from shared.rpc.embeddings import unpack
from tests.support.judged_shop import make_prepared
from tests.support.service_process import ServiceProcess, serving

ANY = Floors(cosine_mean=0.9, cosine_min=0.8, overlap_at_10=0.0, ndcg_drop=1.0)
"""So few weights lose more to int8 than a real model's."""
TEXT = "red desk"
ROWS = [Tokens([2, *range(4, 4 + length), 3]) for length in (1, 30, 7)]


def answers(backend: Any, rows: Sequence[Tokens]) -> Sequence[Any]:
    prepared = backend.prepare(rows)
    found: Sequence[Any] = backend.finish(prepared, backend.run(prepared))
    return found


class QueryEncoder(ServiceProcess):
    name = "query_encoder"


class ItemEncoder(ServiceProcess):
    name = "item_encoder"


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose query tower has two of its base's three layers."""
    folder = tmp_path_factory.mktemp("towers")
    prepared = make_prepared(folder)
    finetune(
        FinetuneOptions(
            data=prepared.path, out=folder / "model", base=str(tiny_base), towers=2, query_layers=2, batch=16,
            max_steps=20, learning_rate=3e-3, evaluations=1, validation_items=5,
        )
    )  # fmt: skip
    return folder / "model"


@pytest.fixture(scope="module")
def bundle(trained: Path) -> Bundle:
    return export(ExportOptions(base=str(trained), out=trained.parent / "bundle", floors=ANY))


def test_a_bundle_holds_both_and_says_so(bundle: Bundle) -> None:
    assert load_bundle(bundle.path) == bundle
    manifest = bundle.manifest
    assert manifest.towers == 2
    assert manifest.metrics.query_int8 is not None
    assert manifest.metrics.query_parity is not None
    assert manifest.metrics.query_int8.cosine_mean != manifest.metrics.int8.cosine_mean  # type: ignore[union-attr]
    assert "two: queries are read by weights of their own" in (bundle.path / "README.md").read_text()
    # Read by one tower alone, the same files give other vectors: another version.
    assert manifest.model_copy(update={"towers": 1}).content_hash() != bundle.version


def test_the_bundle_is_the_model_that_was_trained(trained: Path, bundle: Bundle) -> None:
    folder, fp32 = open_encoder(str(trained), Precision.FP32), open_encoder(str(bundle.path), Precision.FP32)
    assert np.abs(folder.queries([TEXT]) - fp32.queries([TEXT])).max() < 1e-3
    assert np.abs(folder.items([TEXT]) - fp32.items([TEXT])).max() < 1e-3
    assert (fp32.queries([TEXT]) @ fp32.items([TEXT]).T).item() < 0.99


@pytest.mark.parametrize("tower", Tower)
def test_backends_agree_on_each_tower(bundle: Bundle, tower: Tower) -> None:
    onnx, torch = (
        np.array(answers(open_backend(name, bundle, tower=tower, threads=1), ROWS))
        for name in (BackendName.ONNX_FP32, BackendName.TORCH_CPU)
    )
    assert np.abs(onnx - torch).max() < 1e-3


def test_each_service_reads_by_its_own_tower(bundle: Bundle, tmp_path: Path) -> None:
    told = {"bundle": bundle.path, "backend": "onnx-fp32", "threads": 1}
    queries = query_encoder_pb2.EncodeQueriesRequest(queries=[TEXT])
    items = item_encoder_pb2.EncodeItemsRequest(items=[item_pb2.Item(id="1", title=TEXT)])
    with (
        serving(QueryEncoder(tmp_path / "query.log", **told)) as query,
        serving(ItemEncoder(tmp_path / "item.log", **told)) as item,
    ):
        served = [
            query_encoder_pb2_grpc.QueryEncoderStub(query.channel).EncodeQueries(queries, timeout=10).embeddings,
            item_encoder_pb2_grpc.ItemEncoderStub(item.channel).EncodeItems(items, timeout=10).embeddings,
        ]
    encoder = open_encoder(str(bundle.path), Precision.FP32)
    expected = [encoder.queries([TEXT]), encoder.items([encoder.item_text(Item(id="1", title=TEXT))])]
    for got, wanted in zip(served, expected, strict=True):
        assert got.model_version == bundle.version
        assert np.abs(unpack(got) - wanted).max() < 1e-3


def test_a_slim_bundle_has_no_more_than_two_int8_graphs(trained: Path, tmp_path: Path) -> None:
    slim = export(ExportOptions(base=str(trained), out=tmp_path / "slim", floors=ANY, slim=True))
    graphs = [path for path in slim.manifest.files if path.endswith((".onnx", ".safetensors"))]
    assert sorted(graphs) == ["onnx/model_int8.onnx", "query/onnx/model_int8.onnx"]


@pytest.mark.parametrize("name", [BackendName.ONNX_FP32, BackendName.TORCH_CPU])
async def test_who_reads_both_has_each_text_read_by_its_own_tower(bundle: Bundle, name: BackendName) -> None:
    both: Any = open_backend(name, bundle, threads=1)
    apart = {tower: open_backend(name, bundle, tower=tower, threads=1) for tower in Tower}
    rows = [replace(row, tower=tower) for row in ROWS for tower in (Tower.ITEM, Tower.QUERY)]
    together = answers(both, rows)
    for row, got in zip(rows, together, strict=True):
        (alone,) = answers(apart[row.tower], [row])
        assert np.abs(got - alone).max() < 1e-5


async def test_late_interaction_takes_the_querys_tokens_by_the_querys_tower(bundle: Bundle) -> None:
    """Encoded here, or by the query encoder and sent along: the same scores."""
    scorer = open_scorer(bundle, backend=BackendName.ONNX_FP32, threads=1)
    reader = BiEncoder(bundle, Batcher(open_backend(BackendName.ONNX_FP32, bundle, tower=Tower.QUERY, threads=1)))
    await scorer.start()
    await reader.batcher.start()
    items = ["oak desk", "red lamp", "a red desk for two"]
    (rows,) = (await reader.encode_queries([TEXT], token_vectors=True)).rows
    sent = await scorer.score(TEXT, items, query_rows=rows.astype(np.float32))
    assert sent.values == pytest.approx((await scorer.score(TEXT, items)).values, abs=1e-3)
    await scorer.close()
    await reader.close()


def test_what_has_two_towers_is_no_base_of_jobs_for_one(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="export --kind cross-encoder wants a base of one"):
        export(ExportOptions(base=str(trained), out=tmp_path / "cross", kind=BundleKind.CROSS_ENCODER))
    with pytest.raises(JobError, match="pretrain wants a base of one"):
        pretrain(PretrainOptions(data=trained.parent / "prepared", out=tmp_path / "pretrained", base=str(trained)))


def test_towers_that_do_not_read_alike_are_no_model(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "odd")
    tokenizer = tmp_path / "odd" / "query" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    with pytest.raises(JobError, match="its two towers must have the same tokenizer"):
        open_base(str(tmp_path / "odd"))


def test_both_towers_are_averaged(trained: Path, tmp_path: Path) -> None:
    finetune(
        FinetuneOptions(
            data=trained.parent / "prepared", out=tmp_path / "later", base=str(trained), batch=16, max_steps=4,
            learning_rate=3e-3, evaluations=1, validation_items=5,
        )
    )  # fmt: skip
    before, after = (open_encoder(str(path), Precision.FP32) for path in (trained, tmp_path / "later"))
    average(trained, tmp_path / "later", 0.0)
    mixed = open_encoder(str(tmp_path / "later"), Precision.FP32)
    for read in ("queries", "items"):
        old, new, now = (getattr(encoder, read)([TEXT]) for encoder in (before, after, mixed))
        assert np.abs(old - new).max() > 1e-3
        assert np.abs(old - now).max() < 1e-6
