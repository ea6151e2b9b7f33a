import json
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformerTrainingArguments

from services.trainer import __main__ as command
from services.trainer.base import open_base
from services.trainer.errors import JobError
from services.trainer.finetune.data import Texts
from services.trainer.finetune.validation import METRIC, RetrievalValidation
from services.trainer.prepare.job import PrepareOptions, prepare
from services.trainer.prepared import PreparedSet
from services.trainer.pretrain.data import read_catalogue
from services.trainer.pretrain.options import Objective, PretrainOptions
from services.trainer.pretrain.train import KNOWN_ITEM, pretrain
from services.trainer.pretrain.validation import PROBABILITY, MaskedValidation
from services.trainer.record import read_record
from shared.bundles import DEFAULT_TEMPLATE, Prompts
from tests.support.judged_shop import make_prepared, write_files
from tests.unit.services.trainer.conftest import make_base

KNOWN_METRIC = f"{KNOWN_ITEM}_ndcg@10"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return make_prepared(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def unjudged(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    folder = tmp_path_factory.mktemp("unjudged")
    return prepare(PrepareOptions(write_files(folder)[0], folder / "prepared"))


@pytest.fixture
def options(prepared: PreparedSet, tiny_base: Path, tmp_path: Path) -> PretrainOptions:
    return PretrainOptions(
        data=prepared.path, out=tmp_path / "model", base=str(tiny_base), batch=8, learning_rate=1e-3, max_steps=4,
        evaluations=2, validation_items=5, max_item_tokens=40,
    )  # fmt: skip


@pytest.mark.parametrize("objective", list(Objective))
def test_every_objective_ends_in_a_plain_model(
    options: PretrainOptions, prepared: PreparedSet, objective: Objective
) -> None:
    written = pretrain(replace(options, objective=objective))
    assert (options.out / "training.json").read_text() == written.model_dump_json(indent=2) + "\n"
    assert read_record(options.out) is not None
    assert (written.training_data, written.steps, written.seed) == (prepared.content_hash, 4, 0)
    assert written.options["objective"] == objective
    metric = PROBABILITY if objective is Objective.MLM else METRIC
    assert {metric, f"base_{metric}"} <= set(written.evaluation)
    before, after = open_base(options.base), open_base(str(options.out))
    assert set(after.weights) == set(before.weights)
    assert any(not np.array_equal(after.weights[name], value) for name, value in before.weights.items())
    assert (after.pooling, after.normalize, after.max_tokens) == (before.pooling, before.normalize, 40)
    assert list((options.out / "tensorboard").iterdir())
    assert not (options.out / "checkpoints").exists()
    assert not (options.out / "loss.safetensors").exists()


@pytest.mark.parametrize("objective", [Objective.PSEUDO_QUERIES, Objective.MLM])
def test_it_learns(options: PretrainOptions, objective: Objective) -> None:
    evaluation = pretrain(replace(options, objective=objective, max_steps=60, learning_rate=3e-3)).evaluation
    metric = PROBABILITY if objective is Objective.MLM else METRIC
    assert evaluation[metric] > 1.2 * evaluation[f"base_{metric}"]


def test_a_run_that_only_harms_says_so(options: PretrainOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    falling = iter([0.9, 0.2, 0.3])
    monkeypatch.setattr(RetrievalValidation, "__call__", lambda *_, **__: {METRIC: next(falling)})
    assert pretrain(options).evaluation == {METRIC: 0.3, f"base_{METRIC}": 0.9}


def test_a_shop_without_judgements_is_validated_by_made_up_queries(
    options: PretrainOptions, unjudged: PreparedSet
) -> None:
    evaluation = pretrain(replace(options, data=unjudged.path)).evaluation
    assert set(evaluation) == {KNOWN_METRIC, f"base_{KNOWN_METRIC}", f"{KNOWN_ITEM}_recall@100"}


def test_who_is_held_out_is_not_learnt(unjudged: PreparedSet) -> None:
    texts = Texts(DEFAULT_TEMPLATE, Prompts())
    whole = read_catalogue(unjudged, texts, 0, 5, seed=0)
    assert len(whole.held_out) == 5
    assert len(whole.learnt) == 59
    assert not set(whole.learnt) & set(whole.held_out)
    assert len(read_catalogue(unjudged, texts, 0, 400, seed=0).held_out) == 6, "a tenth at most"
    few, more = (read_catalogue(unjudged, texts, items, 5, seed=0).learnt for items in (10, 20))
    assert (len(few), more[:10]) == (10, few)


@pytest.mark.parametrize("objective", [Objective.MLM, Objective.TSDAE, Objective.SIMCSE])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    options: PretrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: Objective
) -> None:
    """Weights that the loss owns and the noise that it makes included."""
    options = replace(options, objective=objective)
    validation = MaskedValidation if objective is Objective.MLM else RetrievalValidation
    calls = count()
    real = validation.__call__
    # Rising, whatever the weights: else the best ones may be those of before the interruption.
    rising = iter(range(100))

    def measured(*arguments: Any, **named: Any) -> dict[str, float]:
        return {name: float(next(rising)) for name in real(*arguments, **named)}

    def interrupted(*arguments: Any, **named: Any) -> dict[str, float]:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return measured(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(validation, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain(options)
    monkeypatch.setattr(validation, "__call__", measured)
    assert pretrain(replace(options, resume=True)).steps == 4
    pretrain(replace(options, out=tmp_path / "whole"))
    one, whole = (open_base(str(path)).weights for path in (options.out, tmp_path / "whole"))
    assert all(np.allclose(value, whole[name], atol=1e-6) for name, value in one.items())


def test_what_does_not_fit_is_named(options: PretrainOptions, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="lower --batch"):
        pretrain(replace(options, batch=500))
    still = make_base(tmp_path / "still")
    config = json.loads((still / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (still / "config.json").write_text(json.dumps(config))
    with pytest.raises(JobError, match="no dropout"):
        pretrain(replace(options, out=tmp_path / "other", base=str(still), objective=Objective.SIMCSE))


@pytest.mark.parametrize("objective", [Objective.MLM, Objective.TSDAE])
def test_gradients_of_several_devices_are_not_lost_unnoticed(
    options: PretrainOptions, monkeypatch: pytest.MonkeyPatch, objective: Objective
) -> None:
    monkeypatch.setattr(SentenceTransformerTrainingArguments, "world_size", 2)
    monkeypatch.setattr(SentenceTransformerTrainingArguments, "n_gpu", 1)
    with pytest.raises(JobError, match="on one device"):
        pretrain(replace(options, objective=objective))


def test_the_command_line(options: PretrainOptions) -> None:
    arguments = ["--data", str(options.data), "--out", str(options.out), "--base", options.base, "--batch", "8"]
    more = ["--objective", "pseudo-queries", "--queries-per-item", "2", "--items", "20", "--max-steps", "1"]
    assert command.main(["pretrain", *arguments, *more]) == 0
    told = json.loads((options.out / "training.json").read_text())["options"]
    assert (told["queries_per_item"], told["items"], told["objective"]) == (2, 20, "pseudo-queries")
