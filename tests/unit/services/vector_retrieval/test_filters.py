from datetime import UTC, datetime

import pytest

from services.vector_retrieval.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_VALUES,
    AllOf,
    AnyOf,
    Category,
    Exists,
    Filter,
    InStock,
    Not,
    Range,
    Text,
    Time,
    attribute_name,
    violations,
)

GOOD: list[Filter] = [
    Text("brand", ("Acme",)),
    Text("tags", ("a", "b"), every=True),
    Text("attributes.color", ("red",), every=True),
    Text("price.currency_code", ("USD",)),
    Range("price", at_least=1, less_than=2),
    Range("attributes.a.b", more_than=-1e300),
    Time("updated_at", since=datetime(2024, 1, 1, tzinfo=UTC)),
    Category(("Home", "Light > Lamps")),
    InStock(False),
    Exists("attributes.色"),
    Exists("description"),
    AnyOf((InStock(True), Not(AllOf((InStock(False),))))),
]


@pytest.mark.parametrize("condition", GOOD)
def test_good_filters_pass(condition: Filter) -> None:
    assert violations(condition) == []


@pytest.mark.parametrize(
    ("condition", "field", "why"),
    [
        (Text("colour", ("red",)), "filter.text.field", "must be one of brand, group_id, id"),
        (Text("price", ("1",)), "filter.text.field", "must be one of"),
        (Text("attributes.", ("x",)), "filter.text.field", "attributes.<name>"),
        (Text("brand", ()), "filter.text.values", "at least one"),
        (Text("brand", ("",)), "filter.text.values", "exists"),
        (Text("brand", ("a",), every=True), "filter.text.all", "one value only"),
        (Text("tags", ("x",) * (MAX_VALUES + 1)), "filter", "text values"),
        (Range("title", at_least=1), "filter.range.field", "must be one of popularity, price"),
        (Range("price"), "filter.range", "at least one bound"),
        (Range("price", at_least=float("nan")), "filter.range", "finite"),
        (Range("price", less_than=float("inf")), "filter.range", "finite"),
        (Time("created_at", since=datetime(2024, 1, 1, tzinfo=UTC)), "filter.time.field", "updated_at"),
        (Time("updated_at"), "filter.time", "at least one bound"),
        (Category(()), "filter.category.path", "1 to 8"),
        (Category(("a",) * 9), "filter.category.path", "1 to 8"),
        (Category(("a", " ")), "filter.category.path", "not be empty"),
        (Exists("vector"), "filter.exists", "must be one of"),
        (AllOf(()), "filter.all_of.filters", "at least one"),
        (AnyOf(()), "filter.any_of.filters", "at least one"),
    ],
)
def test_each_rule_names_its_field(condition: Filter, field: str, why: str) -> None:
    (found,) = violations(condition)
    assert found.field == field
    assert why in found.description


def test_places_in_a_tree_are_named_as_on_the_wire() -> None:
    tree = AllOf((InStock(True), Not(AnyOf((Exists("tags"), Exists("nothing"))))))
    assert [v.field for v in violations(tree)] == ["filter.all_of.filters[1].negate.any_of.filters[1].exists"]


def test_depth_and_size_are_bounded() -> None:
    nested: Filter = InStock(True)
    for _ in range(MAX_DEPTH - 1):
        nested = Not(nested)
    assert violations(nested) == []
    assert "deep" in violations(Not(nested))[0].description

    assert violations(AnyOf((InStock(True),) * MAX_CONDITIONS)) == []
    assert "conditions" in violations(AnyOf((InStock(True),) * (MAX_CONDITIONS + 1)))[0].description


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("attributes.color", "color"),
        ("attributes.a.b", "a.b"),
        ("attributes. ", None),
        ("brand", None),
        ("attributes", None),
    ],
)
def test_attribute_names(field: str, name: str | None) -> None:
    assert attribute_name(field) == name
