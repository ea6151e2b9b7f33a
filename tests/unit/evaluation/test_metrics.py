import math

import numpy as np
import pytest

from tests.evaluation.datasets.interactions import Fold, Interactions
from tests.evaluation.metrics import bootstrap, mean_of, score
from tests.evaluation.ranking import rank


def fold() -> Fold:
    """Users 0 and 1 of two, items 0 to 4; both took item 0, user 1 took item 1."""
    history = Interactions(np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([1, 2, 3]))
    return Fold(history, {0: [2, 3], 1: [4]}, 2, 5, np.arange(5))


def test_measures_are_those_of_the_books() -> None:
    scores = score(fold(), {0: [1, 2, 4, 3], 1: [2, 3]})
    gain = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 + 1 / math.log2(3)
    assert scores.by_user["ndcg@10"] == pytest.approx([gain / ideal, 0.0])
    assert scores.by_user["recall@10"] == pytest.approx([1.0, 0.0])
    assert scores.by_user["mrr"] == pytest.approx([0.5, 0.0])


def test_a_user_without_a_list_scored_nothing() -> None:
    assert score(fold(), {0: [2, 3]}).by_user["ndcg@10"] == pytest.approx([1.0, 0.0])


def test_coverage_and_novelty_are_of_what_is_shown() -> None:
    scores = score(fold(), {0: [1, 2], 1: [2]})
    assert scores.coverage == pytest.approx(2 / 5)
    assert scores.novelty == pytest.approx(np.mean([-math.log2(2 / 3), -math.log2(1 / 3), -math.log2(1 / 3)]))


def test_seeds_are_averaged_user_by_user() -> None:
    both = mean_of([score(fold(), {0: [2, 3]}), score(fold(), {1: [4]})])
    assert both.by_user["ndcg@10"] == pytest.approx([0.5, 0.5])


def test_the_interval_holds_the_mean_and_is_a_point_where_all_are_alike() -> None:
    values = np.random.default_rng(1).random(500)
    within = bootstrap(values)
    assert within.low < values.mean() < within.high
    assert within.high - within.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(500), rel=0.1)
    assert bootstrap(np.ones(10)) == bootstrap(np.ones(10), seed=3)


def test_lists_hold_no_item_the_user_took_and_are_by_score() -> None:
    preferences = np.array([5.0, 4.0, 3.0, 2.0, 1.0], dtype=np.float32)
    lists = rank(fold(), lambda users: np.broadcast_to(preferences, (len(users), 5)), depth=3)
    assert lists == {0: [1, 2, 3], 1: [2, 3, 4]}


def test_ties_are_broken_by_lot() -> None:
    lists = [rank(fold(), lambda users: np.zeros((len(users), 5), np.float32), seed=seed)[0] for seed in range(20)]
    assert len({tuple(items) for items in lists}) > 5
