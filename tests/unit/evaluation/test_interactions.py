import numpy as np
import pytest

from shared.behaviour import by_occasion
from tests.evaluation import history
from tests.evaluation.datasets.interactions import DAY_S, Fold, Interactions, cold_items, fold


def interactions(*rows: tuple[int, int, int]) -> Interactions:
    columns = np.array(rows, dtype=np.int64)
    return Interactions.sorted(columns[:, 0], columns[:, 1], columns[:, 2])


def asked(*rows: tuple[int, int, int], users: int = 3, items: int = 6) -> Fold:
    later = interactions((0, items - 1, 10**9))
    return fold(interactions(*rows), later, users, items)


def test_rows_are_sorted_by_time_and_those_of_one_second_keep_their_order() -> None:
    rows = interactions((0, 1, 20), (0, 2, 10), (0, 3, 20))
    assert rows.items.tolist() == [2, 1, 3]


def test_only_what_is_new_to_a_user_with_a_history_is_asked_for() -> None:
    before = interactions((0, 1, 1), (1, 2, 2))
    after = interactions((0, 1, 5), (0, 2, 6), (0, 2, 7), (2, 3, 8))
    assert fold(before, after, 3, 4).truth == {0: [2]}


def test_new_items_leave_the_history_and_are_the_only_candidates() -> None:
    before = interactions((0, 1, 1), (0, 2, 2), (1, 2, 3))
    after = interactions((0, 3, 5), (0, 2, 6), (0, 4, 7), (1, 3, 8))
    made = fold(before, after, 2, 5, np.array([2, 3]))
    assert made.history.items.tolist() == [1]
    # User 0 took item 2 before: it is no first. User 1 has no history left.
    assert made.truth == {0: [3]}
    assert made.candidates.tolist() == [2, 3]
    assert made.is_cold


def test_a_tenth_of_the_items_is_new_and_always_the_same() -> None:
    assert len(cold_items(1_682)) == 168
    assert cold_items(50).tolist() == cold_items(50).tolist()


def test_an_old_interaction_counts_half_and_the_newest_of_a_pair_counts() -> None:
    made = asked((0, 0, 0), (0, 1, 0), (0, 1, 10 * DAY_S))
    assert made.recent(days=10).toarray()[0].tolist() == [0.5, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_what_happened_on_one_occasion_counts_alike() -> None:
    made = asked((0, 0, 0), (0, 1, 1_000), (0, 2, 1_005), (0, 3, 9_000))
    weights = history.weights(made, occasions=1).toarray()[0]
    assert weights.tolist() == [0.25, 0.5, 0.5, 1.0, 0.0, 0.0]


def test_an_item_counts_where_it_stands_last_and_only_the_newest_count() -> None:
    made = asked((0, 3, 0), (0, 0, 500), (0, 1, 1_000), (0, 0, 2_000), (0, 2, 3_000))
    weights = history.weights(made, occasions=1, length=4).toarray()[0]
    assert weights.tolist() == [0.5, 0.25, 1.0, 0.0, 0.0, 0.0]


def test_days_halve_too() -> None:
    made = asked((0, 0, 0), (0, 1, 30 * DAY_S))
    assert history.weights(made, days=30).toarray()[0, 0] == pytest.approx(0.5)


def test_occasions_are_those_of_the_services() -> None:
    random = np.random.default_rng(3)
    times = np.cumsum(random.choice([0, 4, 60, 5_000], 80))
    items = random.integers(0, 30, 80)
    made = asked(*((0, int(item), int(at)) for item, at in zip(items, times, strict=True)), items=40)
    ours = history.weights(made, occasions=3).toarray()[0]
    theirs = by_occasion(((int(item), float(times[-1] - at), 1.0) for item, at in zip(items, times, strict=True)), 3)
    assert {item: ours[item] for item in theirs} == pytest.approx(theirs)
