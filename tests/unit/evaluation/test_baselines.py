import numpy as np
import pytest

from tests.evaluation import baselines
from tests.evaluation.datasets.interactions import DAY_S, Fold, Interactions


def fold(rows: list[tuple[int, int, int]], users: int, items: int) -> Fold:
    columns = np.array(rows, dtype=np.int64)
    history = Interactions.sorted(columns[:, 0], columns[:, 1], columns[:, 2])
    return Fold(history, {user: [] for user in range(users)}, users, items, np.arange(items))


@pytest.fixture
def shop() -> Fold:
    """Items 0 and 1 go together; item 2 goes with nothing."""
    return fold([(0, 0, 1), (0, 1, 2), (1, 0, 3), (1, 1, 4), (2, 0, 5), (3, 2, 6)], 4, 3)


def test_popularity_counts_takers_within_the_window() -> None:
    asked = fold([(0, 0, 0), (1, 1, 5 * DAY_S), (1, 1, 5 * DAY_S), (2, 1, 5 * DAY_S)], 3, 2)
    assert baselines.popularity(asked, days=1)(np.array([0])).tolist() == [[0.0, 2.0]]
    assert baselines.popularity(asked, days=9)(np.array([0])).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("weighting", baselines.WEIGHTINGS)
def test_item_knn_finds_what_goes_with_what_was_taken(shop: Fold, weighting: str) -> None:
    scores = baselines.item_knn(shop, neighbours=1, shrinkage=0, weighting=weighting)(np.array([2]))[0]
    assert scores.argmax() == 1
    assert scores[2] == 0


def test_shrunk_cosine_is_the_one_of_the_books(shop: Fold) -> None:
    scores = baselines.item_knn(shop, neighbours=2, shrinkage=3, weighting="plain")(np.array([2]))[0]
    assert scores[1] == pytest.approx(2 / (np.sqrt(3) * np.sqrt(2) + 3))


def test_ease_is_the_ridge_regression_of_each_item_from_the_others(shop: Fold) -> None:
    taken, strength = shop.taken.toarray().astype(np.float64), 2.0
    weights = baselines.ease_weights(shop.taken, strength)
    for item in range(3):
        others = [other for other in range(3) if other != item]
        left = taken[:, others]
        expected = np.linalg.solve(left.T @ left + strength * np.eye(2), left.T @ taken[:, item])
        assert weights[others, item] == pytest.approx(expected, abs=1e-6)
        assert weights[item, item] == 0


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        ("als", {"factors": 2, "regularization": 0.1, "alpha": 5, "iterations": 5}),
        ("bpr", {"factors": 2, "learning_rate": 0.1, "regularization": 0.01, "iterations": 300}),
    ],
)
def test_factors_tell_what_goes_together(function: str, settings: dict[str, float]) -> None:
    # Two halves of a shop: whoever buys of one buys of no other.
    rows = [(user, item, 1) for user in range(20) for item in range(8) if user % 2 == item % 2 and user % 8 != item]
    asked = fold(rows, 20, 8)
    scores = getattr(baselines, function)(asked, **settings, seed=0)(np.arange(8))
    own = [scores[user, user] for user in range(8)]
    other = [scores[user, (user + 1) % 8] for user in range(8)]
    assert np.mean(own) > np.mean(other)
