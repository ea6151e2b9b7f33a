import sys
from pathlib import Path

import pytest
import wandb

from services.trainer import run_logs
from services.trainer.errors import JobError
from services.trainer.finetune.options import FinetuneOptions
from services.trainer.finetune.train import finetune
from services.trainer.finetune.validation import METRIC
from tests.support.judged_shop import make_prepared


def test_runs_are_logged_to_a_project_of_weights_and_biases_without_the_shops_texts(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISLE_TRAINER_WANDB_PROJECT", "shop-models")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    prepared = make_prepared(tmp_path)
    options = FinetuneOptions(
        data=prepared.path, out=tmp_path / "first", base=str(tiny_base), batch=16, max_steps=2, evaluations=1
    )
    # As a trial that a search gave up leaves its own.
    wandb.init(project="given-up", dir=str(tmp_path))
    for out in (options.out, tmp_path / "second"):
        finetune(FinetuneOptions(**{**vars(options), "out": out}))
        (logged,) = (out / "wandb").glob("offline-run-*/run-*.wandb")
        told = logged.read_bytes()
        for word in ("shop-models", out.name, METRIC, "learning_rate", str(tiny_base)):
            assert word.encode() in told, word
        for item in prepared.items():
            assert item.title.encode() not in told
    assert list((options.out / "tensorboard").iterdir())


def test_a_project_without_the_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISLE_TRAINER_WANDB_PROJECT", "shop-models")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(JobError, match=r"pip install 'aisle\[wandb\]'"):
        run_logs.callbacks(tmp_path, {})
