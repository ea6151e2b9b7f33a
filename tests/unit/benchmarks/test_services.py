import math

import pytest

from tests.benchmarks.services import within_ms

INF = float("inf")


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.25, 0.5), (0.5, 1.0), (0.75, 3.0), (0.9, 4.2), (1.0, 5.0)],
)
def test_a_share_of_a_histogram_lies_within_its_quantile(share: float, expected: float) -> None:
    assert within_ms({0.001: 5, 0.005: 10, INF: 10}, share) == pytest.approx(expected)


def test_beyond_the_last_bound_nothing_is_known_but_the_bound() -> None:
    assert within_ms({0.001: 5, INF: 10}, 0.99) == 1.0


@pytest.mark.parametrize("buckets", [{}, {0.001: 0, INF: 0}])
def test_of_nothing_there_is_no_quantile(buckets: dict[float, float]) -> None:
    assert math.isnan(within_ms(buckets, 0.5))
