"""What counts as a goal that is reached."""

import numpy as np
import pytest

from services.trainer.evaluate.measures import NDCG_10
from services.trainer.evaluate.score import JUDGED_NDCG_10
from tests.benchmarks.figures import Figure
from tests.evaluation.goals import RECALL, Part, carried_over, reached
from tests.evaluation.measured import Measured

QUERIES = [f"q{at}" for at in range(200)]


def measured(mean: float, *, auc: float | None = None, spread: float = 0.0) -> Measured:
    """Every query has `mean`, give or take `spread`."""
    noise = np.random.default_rng(round(1000 * mean)).normal(0.0, spread, len(QUERIES)) if spread else 0.0
    values = dict(zip(QUERIES, (np.full(len(QUERIES), mean) + noise).tolist(), strict=True))
    return Measured(f"{mean:g}", {NDCG_10: values, RECALL: values, JUDGED_NDCG_10: values}, auc, 1.0)


def by_name(parts: dict[Part, Measured]) -> dict[str, Figure]:
    return {figure.goal.name.removeprefix("goal, test: "): figure for figure in reached(parts, "test")}


def test_goals_are_of_what_was_measured() -> None:
    assert reached({}, "test") == []
    assert reached({Part.WORDS: measured(0.4), Part.UNTRAINED: measured(0.3, auc=0.7)}, "test") == []
    found = by_name({Part.TUNED: measured(0.4, auc=0.7), Part.UNTRAINED: measured(0.3, auc=0.6)})
    assert list(found) == [f"{m}, the fine-tuned bi-encoder ÷ the bi-encoder as it came" for m in (NDCG_10, RECALL)]
    assert all(figure.met for figure in found.values())


@pytest.mark.parametrize(
    ("ours", "spread", "met"), [(0.40, 0.0, True), (0.30, 0.0, False), (0.304, 0.5, False), (0.60, 0.5, True)]
)
def test_more_is_enough_only_where_it_is_sure(ours: float, spread: float, met: bool) -> None:
    parts = {Part.TUNED: measured(ours, spread=spread), Part.WORDS: measured(0.35, spread=spread)}
    figure = by_name(parts)[f"{NDCG_10}, the fine-tuned bi-encoder ÷ BM25"]
    assert figure.met is met
    assert figure.as_json()["met"] is met


@pytest.mark.parametrize(("both", "met"), [(0.47, False), (0.49, True)])
def test_both_are_a_fifth_better_than_the_best_that_needs_no_training(both: float, met: bool) -> None:
    parts = {Part.HYBRID: measured(both), Part.WORDS: measured(0.4), Part.UNTRAINED: measured(0.3)}
    assert by_name(parts)[f"{NDCG_10}, both ÷ the best untrained half"].met is met


@pytest.mark.parametrize(("auc", "met"), [(0.69, False), (0.71, True)])
def test_a_cross_encoder_tells_the_judged_items_apart_better_than_every_bi_encoder(auc: float, met: bool) -> None:
    parts = {Part.CROSS_ENCODER: measured(0.5, auc=auc), Part.UNTRAINED: measured(0.3, auc=0.7)}
    assert by_name(parts)["AUC of judged pairs, a cross-encoder over both ÷ every bi-encoder"].met is met


@pytest.mark.parametrize(("student", "met"), [(0.4190, False), (0.4195, True), (0.4300, True)])
def test_a_distilled_one_keeps_nearly_all_that_its_teacher_adds(student: float, met: bool) -> None:
    parts = {Part.HYBRID: measured(0.4), Part.CROSS_ENCODER: measured(0.42), Part.DISTILLED: measured(student)}
    figure = by_name(parts)[f"{NDCG_10} over the hybrid's, a small one distilled from it ÷ its teacher"]
    assert figure.met is met
    assert figure.value == pytest.approx((student - 0.4) / 0.02)


def test_nothing_is_kept_of_a_teacher_that_adds_nothing() -> None:
    parts = {Part.HYBRID: measured(0.4), Part.CROSS_ENCODER: measured(0.39), Part.DISTILLED: measured(0.41)}
    figure = by_name(parts)[f"{NDCG_10} over the hybrid's, a small one distilled from it ÷ its teacher"]
    assert figure.value is None
    assert figure.met is None
    assert figure.note == "the teacher adds nothing: -0.0100"


@pytest.mark.parametrize(("ms", "met"), [(34.0, False), (33.0, True)])
def test_a_distilled_one_takes_a_third_of_its_teachers_time(ms: float, met: bool) -> None:
    (figure,) = reached({}, "test", {Part.CROSS_ENCODER: 100.0, Part.DISTILLED: ms})
    assert figure.goal.name == "goal, test: time, a small one distilled from it ÷ its teacher"
    assert figure.met is met


@pytest.mark.parametrize(("ours", "met"), [(0.899, False), (0.9, True), (0.901, True)])
def test_in_another_shop_it_is_enough_to_lose_nothing(ours: float, met: bool) -> None:
    (figure,) = carried_over({Part.TUNED: measured(ours), Part.UNTRAINED: measured(0.9)}, "other, test")
    assert figure.goal.name.startswith("goal, other, test: ")
    assert figure.met is met
    assert carried_over({Part.UNTRAINED: measured(0.9)}, "other, test") == []
