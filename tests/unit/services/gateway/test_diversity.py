import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.diversity import explored, marginal_relevance

SHARES = st.floats(0, 1)


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


@given(st.lists(st.floats(0, 1), max_size=20), SHARES, st.integers(0, 5))
def test_everything_is_shown_once(scores: list[float], diversity: float, seed: int) -> None:
    ordered = sorted(scores, reverse=True)
    order = marginal_relevance(ordered, unit(len(ordered), seed), diversity, len(ordered))
    assert sorted(order) == list(range(len(ordered)))
    if ordered and diversity < 1:
        assert ordered[order[0]] == ordered[0]


def test_without_diversity_the_order_stays() -> None:
    assert marginal_relevance([1.0, 0.9, 0.1], unit(3, 0), 0.0, 3) == [0, 1, 2]


def test_a_copy_gives_way_to_something_else() -> None:
    rows = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert marginal_relevance([1.0, 0.99, 0.5], rows, 0.5, 3) == [0, 2, 1]
    assert marginal_relevance([1.0, 0.99, 0.5], rows, 0.1, 3) == [0, 1, 2]


def test_only_the_first_places_are_chosen_anew() -> None:
    rows = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.float32)
    assert marginal_relevance([1.0, 0.9, 0.8, 0.7], rows, 0.9, 2) == [0, 2, 1, 3]


@given(st.lists(st.booleans(), max_size=30), SHARES)
def test_new_items_get_their_share_and_nobody_is_lost(new: list[bool], share: float) -> None:
    order = explored(new, share)
    assert sorted(order) == list(range(len(new)))
    for places in range(1, len(new) + 1):
        owed = min(int(places * share), sum(new))
        assert sum(new[at] for at in order[:places]) >= owed
    for kind in (True, False):
        same = [at for at in order if new[at] is kind]
        assert same == sorted(same)


def test_no_share_no_change() -> None:
    assert explored([False, True, True], 0.0) == [0, 1, 2]
