"""The store's answer to random filters is plain Python's answer over the same items."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TypeVar

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.vector_retrieval import filters
from services.vector_retrieval.filters import AllOf, AnyOf, Category, Exists, Filter, InStock, Not, Range, Text, Time
from services.vector_retrieval.schema import Row
from services.vector_retrieval.search import Consistency, Query
from services.vector_retrieval.store import Store
from shared.items import Attribute, Item, Money
from shared.rpc.items import item_to_proto
from tests.integration.vector_retrieval.reference import matches

pytestmark = pytest.mark.asyncio(loop_scope="module")

T = TypeVar("T")

ITEMS = 300
DIMENSIONS = 8
BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)

# Few enough to meet each other often, nasty enough to break out of whatever is not escaped.
NAMES = [
    "red",
    "Red",
    "a b",
    'quo"te',
    "apo's",
    "back\\slash",
    '\\"',
    "100%",
    "under_score",
    "line\nbreak",
    "tab\there",
    "{b}",
    '") or id != ("',
    "' or '1'=='1",
    "中文",
    "é",
    "😀",
    "~25;",
    "\x1f",
    "\x00",
    "red=blue",
    ">",
]
NUMBERS = [-3.0, -0.5, 0.0, 0.1, 0.25, 1.0, 2.0, 2.5, 19.99, 1e-7, 1e22, 100.0]
PRICES = [0, 1, 990_000, 1_000_000, 19_990_000, 20_000_000, 10**17]

names = st.sampled_from(NAMES)
numbers = st.sampled_from(NUMBERS)


def drawn_item(index: int, random: Random) -> Item:
    def some(values: Sequence[T], most: int) -> tuple[T, ...]:
        return tuple(random.sample(values, random.randint(0, most)))

    def maybe(*values: T) -> T | None:
        return random.choice([None, *values])

    price = maybe(*PRICES)
    return Item(
        id=f"item-{index}",
        title=f"Item {index}",
        description=random.choice(["", "described"]),
        brand=maybe(*NAMES) or "",
        category_path=some(NAMES[:10], 4),
        price=None if price is None else Money(random.choice(["USD", "EUR", "CNY"]), price),
        in_stock=maybe(False, True),
        rating=maybe(0.0, 0.1, 2.5, 4.7, 5.0),
        rating_count=maybe(0, 1, 7, 2**62),
        popularity=maybe(0.0, 0.1, 3.0, 1e9),
        tags=some(NAMES, 4),
        attributes={name: Attribute(some(NAMES, 3), some(NUMBERS, 4)) for name in some(NAMES, 6)},
        group_id=random.choice(["", "g1", 'g"2']),
        language_code=random.choice(["", "en", "zh-Hans"]),
        updated_at=BEGINNING + timedelta(microseconds=random.randint(0, 5)),
    )


CATALOGUE = [drawn_item(index, Random(index)) for index in range(ITEMS)]


def bounds() -> st.SearchStrategy[dict[str, float]]:
    value = numbers | st.sampled_from([0.99, 4.7, 7.0, 2.0**62, 1e300, -1e300])
    return st.dictionaries(
        st.sampled_from(["at_least", "more_than", "at_most", "less_than"]), value, min_size=1, max_size=2
    )


text_fields = st.sampled_from(["brand", "tags", "group_id", "language_code", "price.currency_code", "id"]) | names.map(
    "attributes.{}".format
)
text_values = st.lists(names | st.sampled_from(["USD", "en", "g1", 'g"2', "item-3"]), min_size=1, max_size=3).map(tuple)
range_fields = st.sampled_from(sorted(filters.RANGE_FIELDS)) | names.map("attributes.{}".format)
exists_fields = st.sampled_from(sorted(filters.EXISTS_FIELDS)) | names.map("attributes.{}".format)
times = st.integers(-1, 6).map(lambda m: BEGINNING + timedelta(microseconds=m))

conditions = st.one_of(
    st.builds(Text, text_fields, text_values),
    st.builds(Text, names.map("attributes.{}".format) | st.just("tags"), text_values, st.just(True)),
    st.builds(lambda field, given: Range(field, **given), range_fields, bounds()),
    st.builds(Time, st.just("updated_at"), times, st.none() | times),
    st.builds(Category, st.lists(st.sampled_from(NAMES[:10]), min_size=1, max_size=3).map(tuple)),
    st.builds(InStock, st.booleans()),
    st.builds(Exists, exists_fields),
)
trees: st.SearchStrategy[Filter] = st.recursive(
    conditions,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(AllOf, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["buffered", "flushed"])
async def filled(store: Store, request: pytest.FixtureRequest) -> Store:
    rng = np.random.default_rng(0)
    rows = [
        Row(item, rng.normal(size=DIMENSIONS).astype(np.float32), item_to_proto(item).SerializeToString())
        for item in CATALOGUE
    ]
    await store.upsert(rows, "model-1")
    if request.param == "flushed":
        await store.flush()
        await asyncio.sleep(0.5)
    # From here on the one server shows everything to reads that do not wait, too.
    assert len(await found_by(store, Exists("id"), Consistency.STRONG)) == ITEMS
    return store


async def found_by(store: Store, condition: Filter, consistency: Consistency = Consistency.BOUNDED) -> set[str]:
    answer = await store.search(
        Query(
            vectors=np.ones((1, DIMENSIONS), dtype=np.float32),
            model_version="model-1",
            filter=condition,
            limit=1000,
            consistency=consistency,
        )
    )
    return {candidate.id for candidate in answer.candidates[0]}


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(condition=trees)
async def test_store_agrees_with_plain_python(filled: Store, condition: Filter) -> None:
    assert filters.violations(condition) == []
    expected = {item.id for item in CATALOGUE if matches(condition, item)}
    assert await found_by(filled, condition) == expected


async def test_every_single_condition_field_selects_something(filled: Store) -> None:
    """Guards the property test against a catalogue on which all filters are empty."""
    for condition in (
        Text("brand", ("red",)),
        Text("tags", ('quo"te',)),
        Range("price", at_least=19.99, at_most=19.99),
        Range("attributes.red", at_least=0.1, less_than=2.5),
        Category(("red",)),
        InStock(False),
        Exists("attributes.{b}"),
    ):
        found = await found_by(filled, condition)
        assert 0 < len(found) < ITEMS, condition
