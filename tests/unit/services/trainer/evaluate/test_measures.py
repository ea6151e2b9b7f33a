from math import log2

import pytest

from services.trainer.evaluate.measures import MEASURES, per_query
from services.trainer.evaluate.score import judged_ndcg
from services.trainer.prepared import Grades

GRADES = Grades(lowest=1, highest=3, relevant=2.5)
QRELS = {"q": {"a": 3.0, "b": 2.67, "c": 1.33}, "none": {"d": 1.0}}


def test_ndcg_by_hand() -> None:
    found = per_query(QRELS, {"q": {"x": 0.9, "b": 0.8, "a": 0.7}}, GRADES)
    gains = {item: 2 ** (grade - 1) - 1 for item, grade in QRELS["q"].items()}
    dcg = gains["b"] / log2(3) + gains["a"] / log2(4)
    ideal = gains["a"] + gains["b"] / log2(3) + gains["c"] / log2(4)
    assert found["ndcg@10"]["q"] == pytest.approx(dcg / ideal, abs=1e-3)


def test_yes_and_no_measures_count_relevant_grades_only() -> None:
    found = per_query(QRELS, {"q": {"c": 0.9, "a": 0.8, **{f"x{at}": 0.1 for at in range(12)}}}, GRADES)
    assert found["mrr@10"]["q"] == 0.5
    assert found["recall@10"]["q"] == 0.5
    assert found["map"]["q"] == 0.25


def test_recall_at_100_looks_further() -> None:
    run = {"q": {**{f"x{at}": 1.0 - at / 100 for at in range(50)}, "a": 0.1}}
    found = per_query(QRELS, run, GRADES)
    assert found["recall@10"]["q"] == 0
    assert found["recall@100"]["q"] == 0.5


def test_a_query_without_an_answer_is_zero_and_one_without_relevant_items_is_left_out() -> None:
    found = per_query(QRELS, {}, GRADES)
    assert found == {name: {"q": 0.0} for name in MEASURES}


def test_judged_ndcg_leaves_out_what_says_nothing_of_order() -> None:
    qrels = {"mixed": {"a": 3.0, "b": 1.0}, "all good": {"a": 3.0, "b": 3.0}, "all bad": {"a": 1.0}}
    pairs = {"mixed": {"a": 0.1, "b": 0.9}, "all good": {"a": 0.1, "b": 0.2}, "all bad": {"a": 0.5}}
    assert judged_ndcg(qrels, pairs, GRADES) == {"mixed": pytest.approx(1 / log2(3), abs=1e-3)}
