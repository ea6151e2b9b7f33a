import sys

import pytest

from services.vector_retrieval.facets import Facet, PriceBucket, count


@pytest.mark.parametrize(
    ("bound", "below"),
    [(19.99, 1), (19.990000000000002, 2), (1e-9, 0), (1e30, 3), (sys.float_info.max, 3), (-sys.float_info.max, 0)],
)
def test_a_bound_parts_prices_as_a_filter_does(bound: float, below: int) -> None:
    rows = [{"price": micros, "currency": "EUR"} for micros in (19_980_000, 19_990_000, 2**63 - 1)]
    counts = dict(count(rows, Facet("price", (bound,))))
    assert counts.get(PriceBucket("EUR", None, bound), 0) == below
    assert counts.get(PriceBucket("EUR", bound, None), 0) == 3 - below
