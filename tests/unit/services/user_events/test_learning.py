from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.user_events import learning
from services.user_events.learning import Collector, learn

HALF_LIFE = 10.0
ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 7), st.sampled_from([0.5, 1.0, 4.0]), st.integers(0, 100)),
    min_size=1,
    max_size=60,
)


def collected(rows: Iterable[tuple[int, int, float, int]]) -> Collector:
    found = Collector(HALF_LIFE)
    for row in rows:
        found.add([(str(row[0]).encode(), str(row[1]), row[2], float(row[3]))])
    found.add([])
    return found


def dense(rows: list[tuple[int, int, float, int]]) -> tuple[list[str], np.ndarray]:
    """Users × items, computed in the plainest way."""
    users = list(dict.fromkeys(row[0] for row in rows))
    items = list(dict.fromkeys(row[1] for row in rows))
    matrix = np.zeros((len(users), len(items)))
    for user, item, weight, at in rows:
        cell = users.index(user), items.index(item)
        matrix[cell] = max(matrix[cell], weight * 0.5 ** (-at / HALF_LIFE))
    return [str(item) for item in items], matrix / np.sqrt(np.mean(matrix[matrix > 0] ** 2))


def table(found: Collector, head: int, regularisation: float = 2.0) -> np.ndarray:
    size = len(found.item_ids)
    weights = np.zeros((size, size))
    for one in learn(found.interactions(), size, head, regularisation):
        for other, weight in one.others:
            weights[one.item, other] = weight
    return weights


@given(ROWS)
@settings(deadline=None)
def test_the_head_is_learned_as_its_paper_says(rows: list[tuple[int, int, float, int]]) -> None:
    found = collected(rows)
    ids, matrix = dense(rows)
    assert found.item_ids == ids
    inverse = np.linalg.inv(matrix.T @ matrix + 2.0 * np.eye(len(ids)))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0.0)
    assert table(found, head=100) == pytest.approx(expected, abs=1e-4)


@given(ROWS)
@settings(deadline=None)
def test_the_tail_is_counted(rows: list[tuple[int, int, float, int]]) -> None:
    _, matrix = dense(rows)
    norms = np.linalg.norm(matrix, axis=0)
    expected = matrix.T @ matrix / (np.outer(norms, norms) + learning.SHRINKAGE)
    np.fill_diagonal(expected, 0.0)
    assert table(collected(rows), head=0) == pytest.approx(expected, abs=1e-4)


def test_each_item_is_in_the_head_or_in_the_tail() -> None:
    rows = [(user, item, 1.0, 0) for item in range(6) for user in range(12 - 2 * item)]
    found = collected(rows)
    both = table(found, head=2)
    assert (both.max(axis=1) > 0).all()
    # Of the two most popular, only each other.
    assert (both[:2, 2:] == 0).all()
    assert (both[2:] == table(found, head=0)[2:]).all()


def test_nothing_is_learned_from_nothing() -> None:
    assert list(learn(Collector(1.0).interactions(), 0, 10, 1.0)) == []


def test_a_buyer_for_many_counts_with_the_strongest_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "MAX_ITEMS_A_USER", 2)
    found = collected([(0, 0, 1.0, 0), (0, 1, 4.0, 0), (0, 2, 4.0, 0), (1, 0, 1.0, 0), (1, 1, 1.0, 0)])
    weights = table(found, head=0)
    assert weights[1, 2] > 0
    assert weights[0, 2] == 0
    assert weights[0, 1] > 0


def test_of_many_neighbours_the_strongest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "NEIGHBOURS", 3)
    rows = [(user, item, 1.0, 0) for item in range(1, 8) for user in range(item)]
    rows += [(user, 0, 1.0, 0) for user in range(8)]
    found = collected(rows)
    first = next(one for one in learn(found.interactions(), 8, 0, 1.0) if found.item_ids[one.item] == "0")
    assert [found.item_ids[other] for other, _ in first.others] == ["7", "6", "5"]
