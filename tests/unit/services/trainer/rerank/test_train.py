from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from services.trainer import __main__ as command
from services.trainer import compute
from services.trainer.base import open_base
from services.trainer.errors import JobError
from services.trainer.evaluate.encode import FolderEncoder
from services.trainer.export import export
from services.trainer.finetune.data import Judgements
from services.trainer.finetune.validation import METRIC
from services.trainer.options import ExportOptions
from services.trainer.prepared import PreparedSet
from services.trainer.rerank import data
from services.trainer.rerank import model as models
from services.trainer.rerank.options import RankLoss, RerankOptions
from services.trainer.rerank.train import finetune_reranker
from services.trainer.rerank.validation import ListValidation
from services.trainer.run_options import Keep, MixedPrecision
from shared.bundles import BundleKind, Floors
from tests.support.judged_shop import make_prepared
from tests.support.stopping import stopped_once
from tests.unit.services.trainer.conftest import (
    assert_goes_on,
    assert_other_weights,
    assert_same_weights,
    make_base,
)

ANY = Floors(cosine_mean=0.0, cosine_min=-1.0, overlap_at_10=0.0, ndcg_drop=1.0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return make_prepared(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def options(prepared: PreparedSet, tiny_base: Path, tmp_path: Path) -> RerankOptions:
    return RerankOptions(
        data=prepared.path,
        out=tmp_path / "model",
        base=str(tiny_base),
        batch=8,
        learning_rate=1e-3,
        max_steps=3,
        max_pair_tokens=40,
        evaluations=1,
    )


@pytest.mark.parametrize("loss", [RankLoss.POINTWISE, RankLoss.PAIRWISE, RankLoss.LISTWISE])
def test_every_loss_ends_in_a_cross_encoder_that_can_be_exported(options: RerankOptions, loss: RankLoss) -> None:
    written = finetune_reranker(replace(options, loss=loss, layers=2))
    assert written.steps == 3
    assert set(written.evaluation) == {METRIC, f"base_{METRIC}"}
    assert open_base(str(options.out)).config["num_hidden_layers"] == 2
    bundle = export(
        ExportOptions(
            base=str(options.out), out=options.out.parent / "bundle", kind=BundleKind.CROSS_ENCODER, floors=ANY
        )
    )
    assert bundle.manifest.max_item_tokens == 40
    assert bundle.manifest.training_data == written.training_data


def test_the_whole_run_is_kept_unless_the_best_is_asked_for(
    options: RerankOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {}
    for keep in (options.keep, Keep.BEST):
        validations = iter([0.1, 0.9, 0.5, 0.4])
        monkeypatch.setattr(ListValidation, "__call__", lambda *_, told=validations, **__: {METRIC: next(told)})
        asked = replace(options, evaluations=3, patience=1, keep=keep, out=tmp_path / keep)
        ends[keep] = finetune_reranker(asked)
    assert {keep: (end.steps, end.evaluation[METRIC]) for keep, end in ends.items()} == {
        Keep.LAST: (3, 0.4),
        Keep.BEST: (2, 0.9),
    }
    assert_other_weights(tmp_path / "last", tmp_path / "best")


def test_a_student_learns_what_its_teacher_says(options: RerankOptions, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    trained = finetune_reranker(replace(options, out=teacher))
    taught = replace(options, loss=RankLoss.DISTILL, teacher=str(teacher), layers=1)
    assert finetune_reranker(taught).options["teacher"] == str(teacher)
    with pytest.raises(JobError, match="belong together"):
        finetune_reranker(replace(taught, teacher="", out=tmp_path / "other"))
    begun = finetune_reranker(replace(taught, base="", layers=0, out=tmp_path / "like-its-teacher"))
    assert begun.evaluation[f"base_{METRIC}"] == pytest.approx(trained.evaluation[METRIC])


@pytest.mark.parametrize(("random", "sizes"), [(0, {4}), (2, {4, 5, 6})])
def test_negatives_can_come_from_a_retriever_and_from_anywhere(
    options: RerankOptions, monkeypatch: pytest.MonkeyPatch, random: int, sizes: set[int]
) -> None:
    seen: list[list[str]] = []
    real = data.ranked_lists

    def ranked_lists(judgements: Judgements, unjudged: dict[str, list[str]], *others: Any) -> list[data.RankedList]:
        for key, judged in judgements.judged.items():
            assert not set(judged) & set(unjudged[key])
        seen.extend(unjudged.values())
        return real(judgements, unjudged, *others)

    monkeypatch.setattr(data, "ranked_lists", ranked_lists)
    finetune_reranker(replace(options, retriever=options.base, random_negatives=random))
    assert {len(ids) for ids in seen} <= sizes
    assert max(map(len, seen)) == 4 + random
    assert all(len(set(ids)) == len(ids) for ids in seen)


@pytest.fixture
def distilled(options: RerankOptions, tmp_path: Path) -> RerankOptions:
    """With a teacher, and a retriever that finds the unjudged items."""
    teacher = make_base(tmp_path / "teacher", labels=1)
    return replace(options, loss=RankLoss.DISTILL, teacher=str(teacher), retriever=options.base)


def test_a_teacher_that_was_stopped_scores_the_rest(
    distilled: RerankOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = stopped_once(monkeypatch, models, "logits", after=2, rows=100)
    assert_goes_on(finetune_reranker, distilled, tmp_path / "whole", scored, done=200)


def test_what_was_found_before_training_is_not_computed_again(
    distilled: RerankOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune_reranker(replace(distilled, out=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(ListValidation, "__call__", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune_reranker(distilled)
    assert not list(distilled.out.glob("checkpoints/checkpoint-*")), "stopped before the first"
    for owner, name in [(models, "logits"), (FolderEncoder, "items"), (FolderEncoder, "queries")]:
        monkeypatch.setattr(owner, name, Mock(side_effect=AssertionError(f"{name}, again")))
    finetune_reranker(replace(distilled, resume=True))
    assert_same_weights(distilled.out, tmp_path / "whole")
    assert not (distilled.out / "parts").exists()


@pytest.mark.parametrize("precision", [p for p in MixedPrecision if p is not MixedPrecision.FP16])
def test_teacher_and_student_calculate_as_asked_where_the_machine_can(
    options: RerankOptions, tmp_path: Path, precision: MixedPrecision
) -> None:
    try:
        compute.check(precision)
    except JobError as error:
        pytest.skip(str(error))
    asked = replace(options, mixed_precision=precision, dropout=0.0)
    finetune_reranker(replace(asked, out=tmp_path / "teacher"))
    written = finetune_reranker(replace(asked, loss=RankLoss.DISTILL, teacher=str(tmp_path / "teacher"), layers=1))
    assert written.options["mixed_precision"] == precision
    assert {each.dtype for each in open_base(str(options.out)).weights.values()} == {np.dtype(np.float32)}


def test_dropout_can_be_left_out(options: RerankOptions, tmp_path: Path) -> None:
    for out, dropout in (("own", -1.0), ("none", 0.0)):
        finetune_reranker(replace(options, out=tmp_path / out, dropout=dropout))
    assert_other_weights(tmp_path / "own", tmp_path / "none")


def test_the_command_line(options: RerankOptions) -> None:
    arguments = ["--data", str(options.data), "--out", str(options.out), "--base", options.base]
    assert command.main(["finetune-reranker", *arguments, "--batch", "8", "--max-steps", "1"]) == 0
    assert (options.out / "training.json").is_file()
