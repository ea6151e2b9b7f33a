"""Items, money and vectors survive the wire, and what cannot is refused by name."""

import string
from datetime import UTC, datetime

import numpy as np
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.common.v1 import embeddings_pb2
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from shared.errors import InvalidArgumentError
from shared.items import Attribute, Item, Money
from shared.rpc.embeddings import pack, unpack
from shared.rpc.items import item_from_proto, item_to_proto, money_from_proto, money_to_proto

texts = st.text(max_size=20)
names = st.text(string.ascii_letters, min_size=1, max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
moneys = st.builds(Money, st.sampled_from(["USD", "JPY"]), st.integers(-(10**15), 10**15))
items = st.builds(
    Item,
    id=texts,
    title=texts,
    description=texts,
    brand=texts,
    category_path=st.lists(texts, max_size=3).map(tuple),
    price=st.none() | moneys,
    in_stock=st.none() | st.booleans(),
    rating=st.none() | numbers,
    rating_count=st.none() | st.integers(0, 2**62),
    popularity=st.none() | numbers,
    tags=st.lists(texts, max_size=3).map(tuple),
    attributes=st.dictionaries(
        names,
        st.builds(Attribute, st.lists(texts, max_size=2).map(tuple), st.lists(numbers, max_size=2).map(tuple)),
        max_size=3,
    ),
    group_id=texts,
    language_code=texts,
    url=texts,
    image_url=texts,
    updated_at=st.none() | st.datetimes(min_value=datetime(1, 1, 2), timezones=st.just(UTC)),  # noqa: DTZ001
)


@given(items)
def test_an_item_survives_the_wire(item: Item) -> None:
    sent = item_pb2.Item.FromString(item_to_proto(item).SerializeToString())
    assert item_from_proto(sent) == item


@given(moneys)
def test_money_survives_exactly(money: Money) -> None:
    pb = money_to_proto(money)
    assert abs(pb.nanos) < 1_000_000_000
    assert pb.units * pb.nanos >= 0
    assert money_from_proto(pb, "price") == money


@pytest.mark.parametrize(
    ("units", "nanos", "rule"),
    [(1, 1, "whole millionths"), (1, -5_000_000, "sign of units"), (0, 1_000_000_000, "must be between")],
)
def test_money_that_means_nothing_is_refused(units: int, nanos: int, rule: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"items\[2\].price.nanos: .*{rule}"):
        money_from_proto(item_pb2.Money(currency_code="USD", units=units, nanos=nanos), "items[2].price")


def test_a_time_out_of_range_is_refused() -> None:
    pb = item_pb2.Item(id="1")
    pb.updated_at.seconds = 10**12
    with pytest.raises(InvalidArgumentError, match="updated_at: must lie between"):
        item_from_proto(pb, at="")


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
matrices = st_numpy.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 8)), elements=finite)


@given(matrices)
def test_vectors_survive_the_wire(rows: np.ndarray) -> None:
    came = unpack(embeddings_pb2.Embeddings.FromString(pack(rows, "v1").SerializeToString()))
    np.testing.assert_array_equal(came, rows)


def test_half_precision_survives_too() -> None:
    rows = np.array([[0.5, -2.0]], np.float16)
    pb = pack(rows, "v1")
    assert (len(pb.data), pb.dimensions, pb.dtype) == (4, 2, embeddings_pb2.DTYPE_FLOAT16)
    np.testing.assert_array_equal(unpack(pb), rows.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"dtype": embeddings_pb2.DTYPE_UNSPECIFIED}, "queries.dtype"),
        ({"dimensions": 0}, "queries.dimensions"),
        ({"dimensions": 3}, "queries.data"),
        ({"data": np.array([[1, 2], [3, np.nan]], "<f4").tobytes()}, "queries.data: row 1"),
        ({"data": np.array([[np.inf, 2]], "<f4").tobytes()}, "queries.data: row 0"),
    ],
)
def test_vectors_that_mean_nothing_are_refused(change: dict[str, object], field: str) -> None:
    pb = pack(np.ones((2, 2), np.float32), "v1")
    for name, value in change.items():
        setattr(pb, name, value)
    with pytest.raises(InvalidArgumentError) as refused:
        unpack(pb, "queries")
    assert str(refused.value).startswith(field)
