import json
from dataclasses import replace
from itertools import count, product
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from services.trainer import __main__ as command
from services.trainer import compute, retrieval
from services.trainer.base import open_base
from services.trainer.errors import JobError, TooLittleError
from services.trainer.evaluate.encode import FolderEncoder
from services.trainer.finetune import negatives
from services.trainer.finetune.data import Texts, read_judgements
from services.trainer.finetune.model import load
from services.trainer.finetune.options import FinetuneOptions, GradedLoss, Negatives
from services.trainer.finetune.train import finetune
from services.trainer.finetune.validation import METRIC, RetrievalValidation
from services.trainer.prepared import PreparedSet
from services.trainer.record import read_record
from services.trainer.rerank.validation import ListValidation
from services.trainer.run_options import MixedPrecision
from tests.support.judged_shop import COLOURS, THINGS, make_prepared
from tests.support.stopping import stopped_once
from tests.unit.services.trainer.conftest import assert_goes_on, assert_other_weights, assert_same_weights


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return make_prepared(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def options(prepared: PreparedSet, tiny_base: Path, tmp_path: Path) -> FinetuneOptions:
    return FinetuneOptions(
        data=prepared.path,
        out=tmp_path / "model",
        base=str(tiny_base),
        batch=16,
        learning_rate=1e-3,
        max_steps=4,
        evaluations=2,
        validation_items=5,
    )


def test_held_out_queries_without_a_relevant_item_are_told_before_anything_is_trained(
    options: FinetuneOptions, prepared: PreparedSet
) -> None:
    grades = prepared.report.grades
    held_out = read_judgements(prepared.split("valid"), grades.relevant, 0, seed=0)
    none = {key: dict.fromkeys(judged, grades.lowest) for key, judged in held_out.judged.items()}
    texts = Texts(open_base(options.base).item_template, open_base(options.base).prompts)
    with pytest.raises(TooLittleError, match="nothing says which weights are best"):
        RetrievalValidation(replace(held_out, judged=none), texts, {}, grades, 0, 0)
    with pytest.raises(TooLittleError, match=f"none of {len(none)} held-out queries"):
        ListValidation([], none, grades)


def test_a_run_writes_a_model_and_how_it_came_to_be(options: FinetuneOptions, prepared: PreparedSet) -> None:
    written = finetune(options)
    assert (options.out / "training.json").read_text() == written.model_dump_json(indent=2) + "\n"
    assert read_record(options.out) is not None
    assert written.training_data == prepared.content_hash
    assert written.steps == 4
    assert written.versions["torch"]
    assert set(written.evaluation) == {METRIC, f"base_{METRIC}", "valid_recall@100"}
    assert not (options.out / "checkpoints").exists()
    assert list((options.out / "tensorboard").iterdir())
    before, after = open_base(options.base), open_base(str(options.out))
    assert after.grew_from == before.name
    assert after.max_tokens == written.max_item_tokens
    assert any(not np.array_equal(after.weights[name], value) for name, value in before.weights.items())


def test_it_learns(options: FinetuneOptions) -> None:
    evaluation = finetune(replace(options, max_steps=60, learning_rate=3e-3)).evaluation
    assert evaluation[METRIC] > evaluation[f"base_{METRIC}"] + 0.1


def test_the_same_seed_gives_the_same_weights(options: FinetuneOptions, tmp_path: Path) -> None:
    finetune(options)
    finetune(replace(options, out=tmp_path / "again"))
    finetune(replace(options, out=tmp_path / "other", seed=1))
    one, again, other = (open_base(str(path)).weights for path in (options.out, tmp_path / "again", tmp_path / "other"))
    assert all(np.array_equal(value, again[name]) for name, value in one.items())
    assert any(not np.array_equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_rank": 2},
        {"mini_batch": 4, "dimensions": (32, 16)},
        {"negatives": Negatives.JUDGED, "graded_loss": GradedLoss.COSENT},
        {"negatives": Negatives.MINED, "dimensions": (32, 8)},
        {"graded_loss": GradedLoss.ANGLE, "grade_weights": False, "correct_popularity": False},
        {"towers": 2},
        {"towers": 2, "query_layers": 1, "mini_batch": 4, "dimensions": (32, 16)},
        {"towers": 2, "negatives": Negatives.MINED, "graded_loss": GradedLoss.COSENT},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_every_way_of_training_ends_in_a_plain_model(
    options: FinetuneOptions, prepared: PreparedSet, changes: dict[str, object]
) -> None:
    evaluation = finetune(replace(options, **changes)).evaluation  # type: ignore[arg-type]
    before, after = open_base(options.base), open_base(str(options.out))
    assert set(after.weights) == set(before.weights)
    assert any(not np.array_equal(after.weights[name], value) for name, value in before.weights.items())
    # What was written is what was measured best, low-rank updates and all.
    grades = prepared.report.grades
    texts = Texts(after.item_template, after.prompts)
    held_out = read_judgements(prepared.split("valid"), grades.relevant, options.validation_queries, options.seed)
    measured = RetrievalValidation(
        held_out, texts, texts.items(prepared), grades, options.validation_items, options.seed
    )
    assert measured(load(after, after.max_tokens))[METRIC] == pytest.approx(evaluation[METRIC], abs=1e-6)


def test_queries_can_have_a_tower_of_their_own_that_goes_on_from_where_it_was(
    options: FinetuneOptions, tmp_path: Path
) -> None:
    evaluation = finetune(replace(options, towers=2, query_layers=2)).evaluation
    base, made = open_base(options.base), open_base(str(options.out))
    assert made.query is not None
    assert (made.config["num_hidden_layers"], made.query.config["num_hidden_layers"]) == (3, 2)
    # Of the base's layers the query tower has the first and the last; both towers learn, each its own.
    name = "encoder.layer.{}.output.dense.weight"
    last, mine, items = base.weights[name.format(2)], made.query.weights[name.format(1)], made.weights[name.format(2)]
    assert 0 < np.abs(mine - last).max() < np.abs(mine - base.weights[name.format(1)]).max() / 2
    assert np.abs(items - last).max() > 0
    assert not np.array_equal(items, mine)
    later = replace(options, base=str(options.out), out=tmp_path / "later")
    assert finetune(later).evaluation[f"base_{METRIC}"] == pytest.approx(evaluation[METRIC], abs=1e-6)
    again = open_base(str(later.out))
    assert again.query is not None
    assert again.query.config["num_hidden_layers"] == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"towers": 3}, "--towers 3: 1 or 2"),
        ({"towers": 2, "lora_rank": 2}, "--lora-rank updates one tower"),
        ({"query_layers": 2}, "--query-layers is for a query tower"),
        ({"towers": 2, "query_layers": 9}, "--query-layers 9: the base has 3"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_towers_that_cannot_be_are_refused(options: FinetuneOptions, changes: dict[str, int], words: str) -> None:
    with pytest.raises(JobError, match=words):
        finetune(replace(options, **changes))  # type: ignore[arg-type]


def test_gradient_caching_of_two_towers_is_for_one_process(
    options: FinetuneOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(JobError, match="--mini-batch trains two towers in one process"):
        finetune(replace(options, towers=2, mini_batch=4))


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    options: FinetuneOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count()
    real = RetrievalValidation.__call__

    def interrupted(*arguments: Any, **named: Any) -> dict[str, float]:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(RetrievalValidation, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(options)
    with pytest.raises(JobError, match="is not empty"):
        finetune(options)
    with pytest.raises(JobError, match="options or data differ"):
        finetune(replace(options, resume=True, seed=3))
    assert finetune(replace(options, resume=True)).steps == 4
    finetune(replace(options, out=tmp_path / "whole"))
    one, whole = (open_base(str(path)).weights for path in (options.out, tmp_path / "whole"))
    assert all(np.allclose(value, whole[name], atol=1e-6) for name, value in one.items())


@pytest.mark.parametrize("how", [Negatives.MINED, Negatives.RETRIEVED])
def test_negatives_are_found_once_where_a_run_is_stopped_before_its_first_checkpoint(
    options: FinetuneOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Negatives
) -> None:
    asked = replace(options, negatives=how, retrieval="localhost:50052", lora_rank=2)
    items = [f"{colour}-{thing}" for colour, thing in product(COLOURS, THINGS)]
    monkeypatch.setattr(retrieval, "search", lambda *given: [items[9:40] for _ in given[1]])
    finetune(replace(asked, out=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(RetrievalValidation, "__call__", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune(asked)
    assert not list(asked.out.glob("checkpoints/checkpoint-*")), "stopped before the first"
    monkeypatch.setattr(retrieval, "search", Mock(side_effect=AssertionError("again")))
    monkeypatch.setattr(negatives, "mined_negatives", Mock(side_effect=AssertionError("again")))
    resumed = finetune(replace(asked, resume=True))
    assert_same_weights(asked.out, tmp_path / "whole")
    assert f"base_{METRIC}" in resumed.evaluation
    assert not (asked.out / "parts").exists()


def test_mining_that_was_stopped_encodes_the_rest(
    options: FinetuneOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mining = replace(options, negatives=Negatives.MINED)
    encoded = stopped_once(monkeypatch, FolderEncoder, "items", after=2, rows=20)
    assert_goes_on(finetune, mining, tmp_path / "whole", encoded, done=40)


def test_what_does_not_fit_is_named(options: FinetuneOptions) -> None:
    with pytest.raises(JobError, match="lower --batch"):
        finetune(replace(options, batch=500))
    with pytest.raises(JobError, match="holds no checkpoint"):
        finetune(replace(options, out=options.out / "none", resume=True))


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="says what a CPU says")
def test_half_precision_needs_a_gpu(options: FinetuneOptions) -> None:
    with pytest.raises(JobError, match="needs a CUDA GPU"):
        finetune(replace(options, mixed_precision=MixedPrecision.FP16))


def test_bfloat16_trains_on_a_cpu_that_has_it(options: FinetuneOptions) -> None:
    try:
        compute.check(MixedPrecision.BF16)
    except JobError as error:
        pytest.skip(str(error))
    written = finetune(replace(options, mixed_precision=MixedPrecision.BF16, dropout=0.0))
    assert written.options["mixed_precision"] == "bf16"
    assert {each.dtype for each in open_base(str(options.out)).weights.values()} == {np.dtype(np.float32)}


def test_dropout_can_be_left_out(options: FinetuneOptions, tmp_path: Path) -> None:
    options = replace(options, batch=16, max_steps=2)
    for out, dropout in (("own", -1.0), ("none", 0.0)):
        finetune(replace(options, out=tmp_path / out, dropout=dropout))
    assert_other_weights(tmp_path / "own", tmp_path / "none")


def test_the_command_line(options: FinetuneOptions, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["finetune-encoder", "--data", str(options.data), "--out", str(options.out), "--base", options.base]
    arguments += ["--batch", "16", "--max-steps", "1", "--validation-items", "3", "--dimensions", "32,16"]
    assert command.main(arguments) == 0
    assert json.loads((options.out / "training.json").read_text())["options"]["dimensions"] == [32, 16]
    assert command.main([*arguments, "--dimensions", "all"]) == 1
    assert "--dimensions all" in capsys.readouterr().err
