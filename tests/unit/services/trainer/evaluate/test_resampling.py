import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from services.trainer.evaluate.classification import classify
from services.trainer.evaluate.resampling import Judged, interval, resample, shift, weigh

APART = 1.0
"""How far relevant pairs score above the others, in standard deviations."""


def shop(queries: int = 400, seed: int = 0, apart: float = APART) -> Judged:
    """Six pairs a query, a third of them relevant, whose scores overlap as two normal distributions do."""
    random = np.random.default_rng(seed)
    labels = random.random(6 * queries) < 1 / 3
    scores = random.normal(size=6 * queries) + apart * labels
    return Judged(np.repeat(np.arange(queries), 6), labels, scores, apart / 2)


def rescored(judged: Judged, scores: NDArray[np.float64]) -> Judged:
    return Judged(judged.queries, judged.labels, scores, judged.threshold)


def measured(judged: Judged, rows: NDArray[np.intp] | None = None) -> dict[str, float]:
    """By scikit-learn."""
    taken = np.arange(len(judged.labels)) if rows is None else rows
    return classify(judged.labels[taken].tolist(), judged.scores[taken].tolist(), judged.threshold).values


@pytest.mark.parametrize("decimals", [8, 1, 0], ids=["no ties", "ties", "hardly anything but ties"])
@pytest.mark.parametrize("threshold", [-100.0, 0.5, 100.0])
def test_measures_of_a_resample_are_scikit_learns_of_its_rows(decimals: int, threshold: float) -> None:
    made = shop(queries=30)
    judged = Judged(made.queries, made.labels, made.scores.round(decimals), threshold)
    draws = np.random.default_rng(1).multinomial(30, [1 / 30] * 30, size=20)
    found = weigh(judged, draws)
    for at, draw in enumerate(draws):
        wanted = measured(judged, np.repeat(np.arange(180), np.repeat(draw, 6)))
        assert {name: values[at] for name, values in found.items()} == pytest.approx(wanted)


def test_the_interval_covers_the_auc_that_is_known() -> None:
    auc = float(stats.norm.cdf(APART / np.sqrt(2)))
    held = [interval(resample(shop(queries=60, seed=seed))["roc_auc"]) for seed in range(50)]
    assert sum(each.low < auc < each.high for each in held) >= 43


def test_pairs_of_one_query_are_drawn_together() -> None:
    """A query whose pairs are told six times over says no more than once."""
    judged = shop(queries=200)
    repeated = Judged(
        *(np.repeat(each, 6) for each in (judged.queries, judged.labels, judged.scores)), judged.threshold
    )
    once = resample(judged)
    for name, values in resample(repeated).items():
        assert values == pytest.approx(once[name])


def test_the_same_seed_makes_the_same_draws() -> None:
    one, again, other = (resample(shop(), seed) for seed in (3, 3, 4))
    for name, values in one.items():
        assert np.array_equal(values, again[name])
        assert not np.array_equal(values, other[name])


def test_equal_models_do_not_differ() -> None:
    for values in resample(shop()).values():
        found = shift(0.0, values, values, 400)
        assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_a_better_model_is_seen_and_noise_is_not() -> None:
    judged, random = shop(), np.random.default_rng(5)
    noisy = judged.scores + random.normal(size=len(judged.scores))
    better, worse = rescored(judged, noisy + judged.labels), rescored(judged, noisy)
    ours, theirs = resample(better), resample(worse)
    for name in ("roc_auc", "average_precision"):
        gain = measured(better)[name] - measured(worse)[name]
        found = shift(gain, ours[name], theirs[name], 400)
        assert found.p_value < 0.01
        assert 0 < found.low < gain < found.high
        back = shift(-gain, theirs[name], ours[name], 400)
        assert (back.p_value, back.low) == (found.p_value, pytest.approx(-found.high))
    one, other = (rescored(judged, judged.scores + random.normal(size=len(noisy))) for _ in range(2))
    found = shift(0.0, resample(one)["roc_auc"], resample(other)["roc_auc"], 400)
    assert found.p_value > 0.05
    assert found.low < 0 < found.high


def test_few_queries_prove_nothing() -> None:
    ours, theirs = np.full(2_000, 0.9), np.full(2_000, 0.1)
    assert shift(0.8, ours, theirs, 1).p_value == 1
    assert shift(0.8, ours, theirs, 4).p_value == 0.125
    assert shift(0.8, ours, theirs, 400).p_value < 0.001


def test_draws_of_one_label_are_left_out() -> None:
    judged = Judged(np.array([0, 1, 2]), np.array([True, False, False]), np.array([0.9, 0.1, 0.2]), 0.5)
    for values in resample(judged).values():
        assert len(values) < 2_000
        assert np.isfinite(values).all()
