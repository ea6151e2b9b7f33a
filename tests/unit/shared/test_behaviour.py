from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.behaviour import ONE_OCCASION_S, by_occasion

ACTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(0, 1e6), st.floats(0.1, 10)),
    max_size=20,
)


def test_acts_of_one_moment_are_one_occasion() -> None:
    order = [(f"line-{at}", at * 0.1, 6.0) for at in range(30)]
    assert set(by_occasion([*order, ("before", 60.0, 6.0)], 1.0).values()) == {6.0, 3.0}


def test_the_weight_halves_with_occasions_however_long_ago() -> None:
    week, year = 7 * 86_400.0, 365 * 86_400.0
    weights = by_occasion([("new", 0.0, 1.0), ("older", week, 1.0), ("oldest", year, 1.0)], 1.0)
    assert weights == {"new": 1.0, "older": 0.5, "oldest": 0.25}


def test_the_strongest_act_of_the_last_occasion_counts_and_no_earlier_one() -> None:
    weights = by_occasion([("a", 0.0, 0.5), ("a", 5.0, 3.0), ("a", 1_000.0, 6.0)], 1.0)
    assert weights == {"a": 3.0}


@given(ACTS, st.floats(0.5, 10), st.randoms(use_true_random=False))
def test_the_order_of_telling_does_not_matter(acts: list[tuple[str, float, float]], half: float, random: Any) -> None:
    assert by_occasion(random.sample(acts, len(acts)), half) == by_occasion(acts, half)


@given(ACTS, st.floats(0.5, 10), st.floats(0, 1e5))
def test_only_the_time_between_acts_matters(acts: list[tuple[str, float, float]], half: float, later: float) -> None:
    spaced = [(key, float(round(age / ONE_OCCASION_S) * 3 * ONE_OCCASION_S), weight) for key, age, weight in acts]
    moved = [(key, age + round(later), weight) for key, age, weight in spaced]
    assert by_occasion(moved, half) == pytest.approx(by_occasion(spaced, half))


@given(ACTS, st.floats(0.5, 10))
def test_every_key_has_a_weight_of_at_most_its_strongest_act(acts: list[tuple[str, float, float]], half: float) -> None:
    weights = by_occasion(acts, half)
    assert set(weights) == {key for key, _, _ in acts}
    for key, weight in weights.items():
        assert 0 < weight <= max(w for k, _, w in acts if k == key)
