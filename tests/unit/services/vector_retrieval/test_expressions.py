"""Expressions as the store reads them: parsed by Milvus Lite's own parser, which no caller may lead astray."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vector_retrieval import keys
from services.vector_retrieval.capabilities import RowLayout
from services.vector_retrieval.expressions import ALWAYS, NEVER, compile_filter, ids_in
from services.vector_retrieval.filters import AllOf, AnyOf, Category, Exists, Filter, InStock, Not, Range, Text, Time

parser = pytest.importorskip("milvus_lite.search.filter.parser")
ast = pytest.importorskip("milvus_lite.search.filter.ast")

NATIVE, FLAT = RowLayout.NATIVE, RowLayout.FLAT


def compiled(condition: Filter, layout: RowLayout = NATIVE) -> str:
    return compile_filter(condition, (), layout)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Text("brand", ("a", 'b"')), '(brand in ["a", "b\\""])'),
        (Text("price.currency_code", ("USD",)), '(currency in ["USD"])'),
        (Text("language_code", ("en",)), '(language in ["en"])'),
        (Text("tags", ("x",)), f'array_contains_any(keys, ["{keys.tag("x")}"])'),
        (Range("price", at_least=19.99), f"(price >= 19990000 and price <= {2**63 - 1})"),
        (Range("price", more_than=0.1, less_than=0.3), "(price >= 100001 and price <= 299999)"),
        (Range("price", at_most=1e-9), "(price >= 0 and price <= 0)"),
        (Range("price", less_than=0), NEVER),
        (Range("rating_count", at_least=1e300), NEVER),
        (Range("rating_count", at_least=1.5, at_most=3.5), "(rating_count >= 2 and rating_count <= 3)"),
        (Range("rating", at_least=4), "(rating >= 0.0 and rating >= 4.0)"),
        (Range("popularity", less_than=1e22), "(popularity >= 0.0 and popularity < 1e+22)"),
        (InStock(True), "(in_stock == 1)"),
        (Category(("A", "50%_\\~")), '(category like "A\x1f50~25;~5f;~5c;~7e;\x1f%")'),
        (Time("updated_at", before=datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)), "(updated_at < 1000000)"),
        (Exists("price"), "(price >= 0)"),
        (Not(InStock(True)), "(not (in_stock == 1))"),
        (
            AllOf((InStock(True), AnyOf((InStock(False), Exists("brand"))))),
            '((in_stock == 1) and ((in_stock == 0) or (brand != "")))',
        ),
    ],
)
def test_conditions(condition: Filter, expected: str) -> None:
    assert compiled(condition) == expected


def test_keys_in_a_flat_row() -> None:
    assert compiled(Text("tags", ("x", "y"), every=True), FLAT) == (
        f'((keys like "% {keys.tag("x")} %") and (keys like "% {keys.tag("y")} %"))'
    )


def test_ids_left_out() -> None:
    assert compile_filter(None, (), NATIVE) == ""
    assert compile_filter(None, ["a", 'b"'], NATIVE) == '(id not in ["a", "b\\""])'
    assert compile_filter(InStock(True), ["a"], NATIVE) == '(in_stock == 1) and (id not in ["a"])'


texts = st.text(min_size=1)
nasty = texts | st.sampled_from(
    ['"', "\\", '\\"', '" or id != "', '"]) or (id in ["', "\n", "\r\n", "{b}", "%", "_", "'"]
)


@given(st.lists(nasty, min_size=1, max_size=4))
def test_a_value_stays_a_value(values: list[str]) -> None:
    """Whatever the texts hold, the parser reads one condition with exactly these texts."""
    tree: Any = parser.parse_expr(compiled(Text("brand", values)))
    assert isinstance(tree, ast.InOp)
    assert [literal.value for literal in tree.values.elements] == values
    tree = parser.parse_expr(ids_in(values))
    assert [literal.value for literal in tree.values.elements] == values


@given(st.lists(nasty.filter(str.strip), min_size=1, max_size=8))
def test_a_category_stays_a_prefix(path: list[str]) -> None:
    tree: Any = parser.parse_expr(compiled(Category(path)))
    assert isinstance(tree, ast.LikeOp)
    pattern = tree.pattern.value
    assert pattern.endswith("\x1f%")
    assert not set("%_\\").intersection(pattern[:-1])


@given(nasty.filter(str.strip), nasty, st.booleans(), st.sampled_from(RowLayout))
def test_names_and_values_of_attributes_never_enter(name: str, value: str, every: bool, layout: RowLayout) -> None:
    field = f"attributes.{name}"
    for condition in (Text(field, (value,), every), Range(field, at_least=1), Exists(field)):
        written = compiled(condition, layout)
        parser.parse_expr(written)
        assert written.isascii()
        assert not set("'\\{}").intersection(written)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_can_be_read(bound: float) -> None:
    for field in ("price", "rating", "rating_count", "popularity", "attributes.x"):
        for layout in RowLayout:
            parser.parse_expr(compiled(Range(field, more_than=bound), layout))
            parser.parse_expr(compiled(Range(field, at_least=bound, at_most=bound), layout))


def test_constants() -> None:
    for constant in (ALWAYS, NEVER):
        parser.parse_expr(constant)


def test_a_filter_that_was_not_checked_cannot_inject() -> None:
    with pytest.raises(KeyError):
        compiled(Range('id != "" or price', at_least=1))
