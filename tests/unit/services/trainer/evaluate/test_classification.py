from random import Random

import pytest

from services.trainer.errors import JobError
from services.trainer.evaluate.classification import best_threshold, classify

LABELS = [False, False, True, True, False, True]
SCORES = [0.1, 0.2, 0.3, 0.6, 0.7, 0.9]


def test_measures_by_hand() -> None:
    found = classify(LABELS, SCORES, threshold=0.5)
    assert found.confusion == [[2, 1], [1, 2]]
    assert found.values["accuracy"] == pytest.approx(4 / 6)
    assert found.values["precision"] == found.values["recall"] == found.values["f1"] == pytest.approx(2 / 3)
    # Of the nine pairs of a relevant and an irrelevant score, seven are in order.
    assert found.values["roc_auc"] == pytest.approx(7 / 9)
    assert (found.pairs, found.relevant) == (6, 3)


def test_the_threshold_gives_the_best_f1() -> None:
    threshold = best_threshold(LABELS, SCORES)
    best = classify(LABELS, SCORES, threshold).values["f1"]
    assert all(classify(LABELS, SCORES, at).values["f1"] <= best for at in SCORES)
    assert threshold == 0.3


def test_one_label_alone_cannot_be_told_apart() -> None:
    with pytest.raises(JobError, match="all judged pairs"):
        classify([True, True], [0.1, 0.2], 0.5)


def test_curves_are_short_and_run_from_end_to_end() -> None:
    random = Random(0)
    found = classify([random.random() < 0.4 for _ in range(3_000)], [random.random() for _ in range(3_000)], 0.5)
    for along, _ in (found.roc, found.precision_recall):
        assert len(along) == 200
        assert {min(along), max(along)} == {0, 1}
