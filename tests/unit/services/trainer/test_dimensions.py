"""Bundles whose vectors are the leading components of what the model makes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.trainer.base import open_base
from services.trainer.errors import JobError
from services.trainer.export import export
from services.trainer.finetune.model import encode, load
from services.trainer.record import TrainingRecord
from shared.bundles import DEFAULT_TEMPLATE, BundleKind, Pooling, Precision, Prompts, Tower
from shared.inference import BackendName, Output, open_backend
from tests.unit.services.trainer.conftest import make_base
from tests.unit.services.trainer.exports import options, rows, vectors_of, write_modules


def answers(backend: Any) -> list[NDArray[np.float32]]:
    prepared = backend.prepare(rows())
    found: list[NDArray[np.float32]] = backend.finish(prepared, backend.run(prepared))
    return found


@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("normalize", [True, False])
def test_shorter_vectors_are_the_leading_components(tmp_path: Path, pooling: Pooling, normalize: bool) -> None:
    base = make_base(tmp_path / "base")
    write_modules(base, pooling, normalize)
    whole, short = (export(options(base, tmp_path / str(n), dimensions=n)) for n in (0, 16))
    assert (whole.manifest.dimensions, short.manifest.dimensions) == (32, 16)
    assert "| 32 components |" in (whole.path / "README.md").read_text()
    assert "the leading 16 of 32 components" in (short.path / "README.md").read_text()
    (expected,) = vectors_of(whole.onnx_path(Precision.FP32))
    expected = expected[:, :16]
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    (got,) = vectors_of(short.onnx_path(Precision.FP32))
    assert np.abs(got - expected).max() < 1e-3
    assert np.abs(answers(open_backend(BackendName.TORCH_CPU, short, threads=1)) - expected).max() < 1e-3
    (rounded,) = vectors_of(short.onnx_path(Precision.INT8))
    assert rounded.shape == (len(rows()), 16)
    for name in (BackendName.ONNX_FP32, BackendName.ONNX_INT8, BackendName.TORCH_CPU):
        tokens = answers(open_backend(name, short, output=Output.TOKENS, threads=1))
        assert [each.shape for each in tokens] == [(len(row), 16) for row in rows()]


def test_all_components_are_the_same_bundle_however_asked_for(tiny_base: Path, tmp_path: Path) -> None:
    versions = {n: export(options(tiny_base, tmp_path / str(n), dimensions=n)).version for n in (0, 32, 31)}
    assert versions[0] == versions[32] != versions[31]


def test_both_towers_are_shortened(tiny_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    make_base(base / "query", seed=1)
    whole, short = (export(options(base, tmp_path / str(n), dimensions=n)) for n in (0, 16))
    for tower in Tower:
        (expected,) = vectors_of(whole.onnx_path(Precision.FP32, tower))
        expected = expected[:, :16] / np.linalg.norm(expected[:, :16], axis=1, keepdims=True)
        (got,) = vectors_of(short.onnx_path(Precision.FP32, tower))
        assert np.abs(got - expected).max() < 1e-3
        assert np.abs(answers(open_backend(BackendName.TORCH_CPU, short, tower=tower)) - expected).max() < 1e-3


@pytest.mark.parametrize("dimensions", [-1, 33])
def test_vectors_that_the_base_has_not_are_refused(tiny_base: Path, tmp_path: Path, dimensions: int) -> None:
    with pytest.raises(JobError, match=rf"--dimensions {dimensions}: the base's vectors have 32"):
        export(options(tiny_base, tmp_path / "out", dimensions=dimensions))
    assert not (tmp_path / "out").exists()


def test_a_cross_encoder_has_no_vectors_to_shorten(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", labels=1)
    with pytest.raises(JobError, match="--dimensions 16: a cross-encoder has no vectors"):
        export(options(base, tmp_path / "out", kind=BundleKind.CROSS_ENCODER, dimensions=16))


def test_lengths_that_were_not_trained_are_told(
    tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    trained = TrainingRecord(
        base_model="tiny", item_template=DEFAULT_TEMPLATE, prompts=Prompts(), max_item_tokens=64,
        training_data="0" * 64, seed=0, options={"dimensions": [32, 16]},
    )  # fmt: skip
    (base / "training.json").write_text(trained.model_dump_json())
    for dimensions in (0, 32, 16):
        export(options(base, tmp_path / str(dimensions), dimensions=dimensions))
    assert "--dimensions" not in caplog.text
    export(options(base, tmp_path / "8", dimensions=8))
    assert f"--dimensions 8: {base} was trained for vectors of 32 and 16 components" in caplog.text


def test_a_bundle_of_shorter_vectors_is_a_base_of_as_short_ones(tiny_base: Path, tmp_path: Path) -> None:
    short = export(options(tiny_base, tmp_path / "short", dimensions=16))
    again = export(options(short.path, tmp_path / "again"))
    assert again.version == short.version
    assert export(options(short.path, tmp_path / "whole", dimensions=32)).manifest.dimensions == 32
    model = load(open_base(str(short.path)), 64)
    assert encode(model, ["red desk"], Tower.ITEM).shape == (1, 16)
