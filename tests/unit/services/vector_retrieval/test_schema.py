from datetime import UTC, datetime

import numpy as np
import pytest

from services.vector_retrieval import keys
from services.vector_retrieval.capabilities import Capabilities, RowLayout, probe
from services.vector_retrieval.schema import (
    Bm25Params,
    IndexType,
    Row,
    VectorIndex,
    category_prefix,
    index_params,
    item_keys,
    micros,
    payload_of,
    to_store,
    violations,
)
from shared.items import MAX_PAYLOAD_BYTES, Attribute, Item, Money

LITE, SERVER = probe("milvus_lite-3.2.2"), probe("v2.3.5-lite")
AT = datetime(2024, 1, 1, tzinfo=UTC)
BARE = Item(id="1", title="Lamp", updated_at=AT)
FULL = Item(
    id="2",
    title="Desk lamps",
    brand="Acme",
    category_path=("Home", "Light"),
    price=Money("EUR", 19_990_000),
    in_stock=False,
    rating=0.0,
    rating_count=0,
    popularity=1.5,
    tags=("new",),
    attributes={"color": Attribute(text=("red",)), "size": Attribute(numbers=(3, 1, 3, 2))},
    group_id="g",
    language_code="en",
    updated_at=AT,
)


def row(item: Item, payload: bytes = b"\x00payload") -> Row:
    return Row(item, np.ones(4, dtype=np.float32), payload)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("milvus_lite-3.2.2", ("lite", "3.2.2", True, RowLayout.FLAT)),
        ("v2.3.5-lite", ("server", "2.3.5-lite", False, RowLayout.NATIVE)),
        ("v2.4.10", ("server", "2.4.10", False, RowLayout.NATIVE)),
        ("v2.5.0", ("server", "2.5.0", True, RowLayout.NATIVE)),
        ("2.6.4-dev", ("server", "2.6.4-dev", True, RowLayout.NATIVE)),
        ("unknown", ("server", "unknown", False, RowLayout.NATIVE)),
    ],
)
def test_capabilities(version: str, expected: tuple[str, str, bool, RowLayout]) -> None:
    can = probe(version)
    assert (can.home, can.version, can.lexical, can.row_layout) == expected


def test_what_is_not_known_has_a_value_of_its_own() -> None:
    stored = to_store(row(BARE), SERVER)
    assert (stored["price"], stored["in_stock"], stored["rating"], stored["rating_count"]) == (-1, -1, -1.0, -1)
    assert (stored["brand"], stored["category"], stored["keys"], stored["numbers"]) == ("", "", [], {})
    zeros = to_store(row(FULL), SERVER)
    assert (zeros["in_stock"], zeros["rating"], zeros["rating_count"]) == (0, 0.0, 0)


@pytest.mark.parametrize("can", [LITE, SERVER])
def test_a_row(can: Capabilities) -> None:
    stored = to_store(row(FULL), can)
    assert (stored["price"], stored["currency"], stored["updated_at"]) == (19_990_000, "EUR", micros(AT))
    assert payload_of(stored["payload"]) == b"\x00payload"
    assert keys.tag("new") in stored["keys"]
    numbers = stored["numbers"] if can is SERVER else stored
    assert [numbers[keys.number("size", i)] for i in range(3)] == [1, 2, 3]
    assert numbers[keys.largest("size")] == 3
    assert ("lexical" in stored) is can.lexical


def test_lexical_text_holds_what_an_item_is_found_by() -> None:
    assert to_store(row(FULL), LITE)["lexical"] == "desk lamp acm home light new color red size"


def test_keys_tell_kinds_and_parts_apart() -> None:
    different = [
        keys.tag("a"),
        keys.has("a"),
        keys.attribute("a", "b"),
        keys.attribute("ab", ""),
        keys.attribute("", "ab"),
        keys.number("a", 0),
        keys.number("a", 1),
        keys.number("a0", 0),
        keys.largest("a"),
    ]
    assert len(set(different)) == len(different)
    assert all(len(key) == keys.KEY_CHARS and key.isalnum() and key.isascii() for key in different)


def test_categories_cannot_run_into_each_other() -> None:
    assert category_prefix(["A"]) != category_prefix(["A\x1f"])
    assert not category_prefix(["Home", "Lighting"]).startswith(category_prefix(["Home", "Light"]))
    assert category_prefix(["a~25;"]) != category_prefix(["a%"])


def test_micros_are_exact() -> None:
    assert micros(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
    assert micros(datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC)) - micros(AT) == 1


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (row(BARE, b"x" * (MAX_PAYLOAD_BYTES + 1)), "item"),
        (Row(BARE, np.zeros(4, dtype=np.float32), b""), "item.vector"),
        (row(Item(id="1", title="t", language_code="x" * 129)), "item.language_code"),
        (row(Item(id="1", title="t", price=Money("USD", 2**63))), "item.price"),
        (row(Item(id="1", title="t", attributes={"n": Attribute(numbers=range(17))})), "item.attributes['n'].numbers"),
        (
            row(Item(id="1", title="t", attributes={"n": Attribute(text=[str(i) for i in range(2048)])})),
            "item.attributes",
        ),
    ],
)
def test_rows_that_cannot_be_stored(bad: Row, field: str) -> None:
    assert [v.field for v in violations(bad)] == [field]


def test_the_largest_row_fits() -> None:
    item = Item(
        id="1",
        title="t",
        updated_at=AT,
        attributes={"n": Attribute(text=[str(i) for i in range(2046)])},
    )
    big = row(item, b"x" * MAX_PAYLOAD_BYTES)
    assert list(violations(big)) == []
    stored = to_store(big, LITE)
    assert len(stored["keys"]) <= 65_535
    assert len(stored["payload"]) <= 65_535
    assert len(item_keys(item)) == 2047


@pytest.mark.parametrize("can", [LITE, SERVER, probe("v2.6.4")], ids=["lite", "2.3", "2.6"])
@pytest.mark.parametrize(
    ("index_type", "parameters"),
    [
        (IndexType.HNSW, {"M": 8, "efConstruction": 99}),
        (IndexType.FLAT, {}),
        (IndexType.IVF_FLAT, {"nlist": 7}),
    ],
)
def test_indexes_are_built_with_the_parameters_given(
    can: Capabilities, index_type: IndexType, parameters: dict[str, float]
) -> None:
    indexes = index_params(VectorIndex(index_type, 8, 99, 7), Bm25Params(0.3, 0.5), can)
    made = {one.to_dict()["field_name"]: one.to_dict() for one in indexes}
    assert made["vector"]["index_type"] == index_type
    wanted = {"vector": parameters}
    if can.lexical:
        wanted["sparse"] = {"bm25_k1": 0.3, "bm25_b": 0.5}
    for name, params in wanted.items():
        # Milvus Lite reads them below one name and ignores them elsewhere; servers the other way round.
        assert {k: v for k, v in (made[name]["params"] if can is LITE else made[name]).items() if k in params} == params
