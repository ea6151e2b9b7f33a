import numpy as np
import pytest

from services.trainer.evaluate.statistics import compare, estimate


def test_an_interval_holds_the_mean_and_narrows_with_more_queries() -> None:
    values = np.random.default_rng(0).uniform(size=1_000)
    few, many = estimate(values[:50].tolist()), estimate(values.tolist())
    assert many.low < many.mean < many.high
    assert many.high - many.low < few.high - few.low
    # The normal approximation is good at this size.
    assert many.high - many.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(1_000), rel=0.1)


def test_one_value_has_no_interval() -> None:
    assert (estimate([0.3]).low, estimate([0.3]).high) == (0.3, 0.3)
    assert np.isnan(estimate([]).mean)


def test_a_small_steady_gain_is_seen_and_noise_is_not() -> None:
    random = np.random.default_rng(0)
    before = random.uniform(size=300)
    steady = compare((before + random.normal(0.02, 0.05, 300)).tolist(), before.tolist())
    assert steady.p_value < 0.01
    assert steady.low > 0
    noise = compare((before + random.normal(0, 0.05, 300)).tolist(), before.tolist())
    assert noise.p_value > 0.05
    assert noise.low < 0 < noise.high


def test_equal_models_do_not_differ() -> None:
    same = compare([0.1, 0.5], [0.1, 0.5])
    assert (same.mean, same.p_value, same.wins, same.losses) == (0.0, 1.0, 0, 0)


def test_of_one_query_no_difference_is_sure() -> None:
    one = compare([0.5], [0.4])
    assert (one.mean, one.p_value, one.wins) == (pytest.approx(0.1), 1.0, 1)
    assert compare([], []).p_value == 1.0


def test_the_test_is_paired_and_two_sided() -> None:
    one, other = [0.1, 0.5, 0.9, 0.4] * 10, [0.2, 0.6, 0.8, 0.5] * 10
    there, back = compare(one, other), compare(other, one)
    assert there.p_value == pytest.approx(back.p_value, abs=0.01)
    assert (there.wins, there.losses) == (back.losses, back.wins) == (10, 30)
