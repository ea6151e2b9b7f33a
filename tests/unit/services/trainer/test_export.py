import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from services.trainer import __main__ as command
from services.trainer import parity
from services.trainer.base import open_base
from services.trainer.errors import JobError
from services.trainer.export import export
from services.trainer.graph import (
    Architecture,
    Fp32Linear,
    GraphSpec,
    Int8Linear,
    Int8Table,
    Linear,
    UnsupportedModelError,
    build_graph,
)
from services.trainer.graph.builder import GraphBuilder
from services.trainer.graph.linear import _column_scales
from services.trainer.int8 import shortfalls
from services.trainer.probe import Answers, feeds
from services.trainer.reference import Reference
from shared.bundles import BundleError, BundleKind, Floors, Int8Report, Pooling, Precision, load_bundle
from shared.inference import BackendName, open_backend
from shared.inference.backends.onnx import open_session
from shared.inference.tokens import pad
from tests.unit.services.trainer.conftest import make_base
from tests.unit.services.trainer.exports import options, rows, vectors_of, write_modules


@pytest.mark.parametrize(
    ("model_type", "kind"),
    [
        ("bert", BundleKind.BI_ENCODER),
        ("bert", BundleKind.CROSS_ENCODER),
        ("xlm-roberta", BundleKind.BI_ENCODER),
        ("roberta", BundleKind.CROSS_ENCODER),
    ],
)
def test_an_export_gives_the_models_own_numbers(tmp_path: Path, model_type: str, kind: BundleKind) -> None:
    base = make_base(tmp_path / "base", model_type, labels=1 if kind is BundleKind.CROSS_ENCODER else 0)
    bundle = export(options(base, tmp_path / "out", kind=kind))
    assert load_bundle(tmp_path / "out", kind=kind) == bundle
    assert bundle.manifest.dimensions == (1 if kind is BundleKind.CROSS_ENCODER else 32)

    reference = Reference(bundle.path, kind, bundle.manifest.pooling, bundle.manifest.normalize)
    batch = pad(rows())
    session = open_session(bundle.onnx_path(Precision.FP32))
    got = session.run(None, feeds(session, rows()))
    for ours, theirs in zip(got, reference.run(batch), strict=True):
        assert np.abs(ours - theirs).max() < 1e-3


@pytest.mark.parametrize("linear", [Fp32Linear(), Int8Linear()])
def test_what_comes_after_the_last_attention_runs_on_the_first_token_alone(tmp_path: Path, linear: Linear) -> None:
    base = open_base(str(make_base(tmp_path / "base", labels=1)))
    spec = GraphSpec(Architecture.of(base.config, base.weights), BundleKind.CROSS_ENCODER)
    model, inputs = build_graph(spec, base.weights, linear)
    watched = [inputs.get(f"layer{block}.up", f"layer{block}.middle") for block in range(3)]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in watched)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    logits, *found = session.run(["logits", *watched], feeds(session, rows()))
    total = sum(len(row.ids) for row in rows())
    assert [value.shape for value in found] == [(total, 32), (total, 32), (len(rows()), 32)]
    alone = np.concatenate([session.run(["logits"], feeds(session, [row]))[0] for row in rows()])
    assert np.abs(logits - alone).max() < 1e-4


def test_a_slim_bundle_is_its_int8_graph_and_near_to_fp32(tiny_base: Path, tmp_path: Path) -> None:
    whole, slim = (export(options(tiny_base, tmp_path / str(slim), slim=slim)) for slim in (False, True))
    assert [path.name for path in sorted(slim.path.rglob("*")) if path.suffix in (".onnx", ".safetensors")] == [
        "model_int8.onnx"
    ]
    assert slim.version != whole.version
    for missing in (BackendName.ONNX_FP32, BackendName.TORCH_CPU):
        with pytest.raises(BundleError, match="--slim"):
            open_backend(missing, slim)
    (expected,) = vectors_of(whole.onnx_path(Precision.FP32))
    (got,) = vectors_of(slim.onnx_path(Precision.INT8))
    assert (got * expected).sum(axis=1).min() > 0.98


def test_the_card_tells_what_was_done_and_does_not_make_another_model(tiny_base: Path, tmp_path: Path) -> None:
    about = tmp_path / "about.md"
    about.write_text("Good for lamps.\n")
    told = export(options(tiny_base, tmp_path / "told", about=about))
    untold = export(options(tiny_base, tmp_path / "untold"))
    assert told.version == untold.version == load_bundle(tmp_path / "told").version
    card = (told.path / "README.md").read_text()
    assert "Good for lamps." in card
    assert told.version in card
    assert "Not trained here" in card
    assert f"{told.manifest.metrics.int8.cosine_mean:.4f}" in card  # type: ignore[union-attr]


def test_a_card_without_its_text_is_refused_before_anything_is_written(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="--about"):
        export(options(tiny_base, tmp_path / "out", about=tmp_path / "missing.md"))
    assert not (tmp_path / "out").exists()


def test_a_table_of_bytes_is_within_half_a_step_of_every_row() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32) * np.logspace(-6, 2, 50)[:, None]
    graph = GraphBuilder()
    ids = graph.node("Gather", ["input_ids", graph.constant("first", np.array(0, np.int64))], "ids")
    graph.node("Identity", [Int8Table()(graph, ids, "word", rows.astype(np.float32))], "out")
    model = graph.model("table", ["input_ids"], {"out": ["tokens", 8]})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (got,) = session.run(None, {"input_ids": np.arange(50)[None]})
    assert (np.abs(got - rows) <= np.abs(rows).max(axis=1, keepdims=True) / 127 * 0.501).all()


def test_the_bundle_says_how_good_it_is(tiny_base: Path, tmp_path: Path) -> None:
    manifest = export(options(tiny_base, tmp_path / "out", name="tiny")).manifest
    assert manifest.name == "tiny"
    assert manifest.metrics.parity is not None
    assert max(manifest.metrics.parity.single, manifest.metrics.parity.batched) <= 1e-3
    assert manifest.metrics.int8 is not None
    assert manifest.metrics.int8.invariance <= 1e-3
    assert manifest.metrics.int8.cosine_mean > 0.99
    assert manifest.metrics.validation_set.startswith("validation.jsonl sha256:")
    assert manifest.command.startswith("python -m services.trainer")
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_and_normalisation_are_in_the_graph(tmp_path: Path, pooling: Pooling, normalize: bool) -> None:
    base = make_base(tmp_path / "base")
    write_modules(base, pooling, normalize)
    (base / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "q: ", "passage": "p: "}}))
    manifest = export(options(base, tmp_path / "out")).manifest
    assert (manifest.pooling, manifest.normalize) == (pooling, normalize)
    assert (manifest.prompts.query, manifest.prompts.item) == ("q: ", "p: ")


def test_the_same_inputs_are_not_exported_twice(
    tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = export(options(tiny_base, tmp_path / "out"))
    made = (tmp_path / "out" / "bundle.json").stat().st_mtime_ns
    assert export(options(tiny_base, tmp_path / "out")) == first
    assert (tmp_path / "out" / "bundle.json").stat().st_mtime_ns == made
    assert "reused" in caplog.messages[-1]

    again = export(options(tiny_base, tmp_path / "out", force=True))
    assert again.version == first.version, "an export is deterministic"
    changed = export(options(tiny_base, tmp_path / "out", max_query_tokens=8))
    assert changed.version != first.version


def test_a_damaged_bundle_is_made_again(tiny_base: Path, tmp_path: Path) -> None:
    bundle = export(options(tiny_base, tmp_path / "out"))
    bundle.onnx_path(Precision.INT8).write_bytes(b"")
    assert export(options(tiny_base, tmp_path / "out")) == bundle
    load_bundle(tmp_path / "out")


def test_int8_under_the_floor_fails_and_writes_nothing(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"(?s)floors.*all: .*cosine_mean.*feed-forward-of-inner-blocks"):
        export(options(tiny_base, tmp_path / "out", floors=Floors(cosine_mean=1.1)))
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_differs_from_torch_fails_and_writes_nothing(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "_difference", lambda *arguments: 0.5)
    with pytest.raises(JobError, match="differs from torch by 5"):
        export(options(tiny_base, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_layers_can_stay_in_fp32(tiny_base: Path) -> None:
    base = open_base(str(tiny_base))
    spec = GraphSpec(Architecture.of(base.config, base.weights), BundleKind.BI_ENCODER)
    model, layers = build_graph(spec, base.weights, Fp32Linear())
    assert sorted(layers)[:4] == ["layer0.down", "layer0.out", "layer0.qkv", "layer0.up"]
    partly, _ = build_graph(spec, base.weights, Int8Linear(keep=frozenset(list(layers)[:3])))
    count = sum(node.op_type == "MatMulIntegerToFloat" for node in partly.graph.node)
    assert count == len(layers) - 3
    assert not any(node.op_type == "MatMulIntegerToFloat" for node in model.graph.node)


def test_no_pair_of_weights_can_saturate_16_bits() -> None:
    """255 x (sum of two neighbours of one sign) must fit a signed 16-bit register; see `_column_scales`."""
    random = np.random.default_rng(0)
    for weight in (random.standard_normal((64, 16)), np.ones((7, 3)), np.zeros((4, 2)), -np.ones((2, 1))):
        steps = np.round(weight / _column_scales(weight.astype(np.float32)))
        assert np.abs(steps).max() <= 127
        pairs = np.pad(steps, ((0, len(steps) % 2), (0, 0))).reshape(-1, 2, weight.shape[1])
        assert 255 * np.maximum(pairs, 0).sum(axis=1).max() <= 32767
        assert 255 * np.minimum(pairs, 0).sum(axis=1).min() >= -32768


def test_each_floor_is_a_floor() -> None:
    good = Int8Report(
        variant="all",
        cosine_mean=0.999,
        cosine_min=0.99,
        overlap_at_10=0.99,
        ndcg_fp32=0.9,
        ndcg_int8=0.9,
        invariance=0.0,
        floors=Floors(),
    )
    assert shortfalls(good) == []
    for change in (
        {"cosine_mean": 0.9},
        {"cosine_min": 0.5},
        {"overlap_at_10": 0.5},
        {"ndcg_int8": 0.8},
        {"invariance": 0.01},
        {"cosine_mean": float("nan")},
    ):
        assert len(shortfalls(good.model_copy(update=change))) == 1, change


def test_ranking_numbers_are_what_they_say() -> None:
    answers = Answers(
        rows=np.zeros((2, 1), np.float32),
        scores=np.array([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5]], np.float32),
        relevant=np.array([0, 2]),
    )
    assert answers.ranking().tolist() == [[0, 2, 1], [0, 2, 1]]
    assert answers.ndcg() == pytest.approx((1 + 1 / np.log2(3)) / 2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mpnet"}, "no ONNX graph for model type 'mpnet'"),
        ({"model_type": "bert", "hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"model_type": "bert", "position_embedding_type": "relative_key"}, "relative_key"),
    ],
)
def test_a_family_without_a_graph_is_named(config: dict[str, str], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        Architecture.of(config, {})


def test_a_cross_encoder_needs_a_head(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="classification head"):
        export(options(tiny_base, tmp_path / "out", kind=BundleKind.CROSS_ENCODER))


def test_the_command_line(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    arguments = ["export", "--base", str(tiny_base), "--out", out, "--cosine-floor", "0.9", "--ndcg-drop", "1"]
    status = command.main(arguments)
    error = capsys.readouterr().err
    assert status in (0, 1), error
    assert status == 0 or "floors" in error
    assert command.main(["export", "--base", "nowhere", "--out", out]) == 1
    assert "no such directory" in capsys.readouterr().err
    for job in command.JOBS:
        with pytest.raises(SystemExit) as exit_:
            command.main([job, "--help"])
        assert exit_.value.code == 0
        assert {"--out", "--registry"} & set(capsys.readouterr().out.split())
