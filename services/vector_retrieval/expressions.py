"""Filters → Milvus expressions. The one place that writes them.

Nothing a caller wrote enters an expression except as a quoted text with every special character escaped, or as a
number that was formatted here; names of attributes and tags enter as digests (`keys`). Each condition is written so
that it is true or false and never unknown, because Milvus Lite negates with three values and servers with two.

`NEVER` and `ALWAYS` stand for conditions that no item, or each, can meet.
"""

from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from services.vector_retrieval import filters, keys, schema
from services.vector_retrieval.capabilities import RowLayout
from services.vector_retrieval.filters import Filter
from shared.items import MICROS_PER_UNIT

NEVER = '(id == "")'
ALWAYS = '(id != "")'

_INT64_MAX = 2**63 - 1

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})

_TEXT_COLUMNS = {
    "id": "id",
    "brand": "brand",
    "group_id": "group_id",
    "language_code": "language",
    "price.currency_code": "currency",
}
_FLOAT_COLUMNS = {"rating": "rating", "popularity": "popularity"}
_EXISTS_COLUMNS = {
    "id": 'id != ""',
    "title": 'id != ""',
    "brand": 'brand != ""',
    "category_path": 'category != ""',
    "price": "price >= 0",
    "in_stock": "in_stock >= 0",
    "rating": "rating >= 0.0",
    "rating_count": "rating_count >= 0",
    "popularity": "popularity >= 0.0",
    "group_id": 'group_id != ""',
    "language_code": 'language != ""',
    "updated_at": 'id != ""',
}


def compile_filter(root: Filter | None, exclude_ids: Sequence[str], layout: RowLayout) -> str:
    """The expression of a valid filter (see `filters.violations`) and the ids left out; empty when all items do."""
    parts = [_compile(root, layout)] if root is not None else []
    if exclude_ids:
        parts.append(without(exclude_ids))
    return both(*parts)


def ids_in(ids: Iterable[str]) -> str:
    """Holds for the items with these ids."""
    return f"id in {_texts(ids)}"


def after(item_id: str) -> str:
    """Holds for the items with a greater id; for all, when `item_id` is empty."""
    return f'id > "{_escape(item_id)}"'


def outside_groups(group_ids: Iterable[str]) -> str:
    """Holds for the items of other groups, and of none."""
    return f"(group_id not in {_texts(group_ids)})"


def without(ids: Iterable[str]) -> str:
    """Holds for the items with other ids."""
    return f"(id not in {_texts(ids)})"


def both(*parts: str) -> str:
    """Holds where each of `parts` does; an empty one always does."""
    return " and ".join(part for part in parts if part)


def scaled(bound: float, scale: int, rounding: str) -> int:
    """A finite `bound`, however large, in a column's whole numbers, `scale` to one; `rounding` is `decimal`'s."""
    # By its shortest decimal form: 19.99 means 19.99, not the binary fraction next to it.
    return int((Decimal(repr(bound)) * scale).to_integral_value(rounding))


def _compile(node: Filter, layout: RowLayout) -> str:
    match node:
        case filters.AllOf(children):
            return f"({' and '.join(_compile(c, layout) for c in children)})"
        case filters.AnyOf(children):
            return f"({' or '.join(_compile(c, layout) for c in children)})"
        case filters.Not(child):
            return f"(not {_compile(child, layout)})"
        case filters.Text():
            return _text(node, layout)
        case filters.Range():
            return _range(node, layout)
        case filters.Time():
            return _time(node)
        case filters.Category(path):
            return f'(category like "{_escape(schema.category_prefix(path))}%")'
        case filters.InStock(value):
            return f"(in_stock == {int(value)})"
        case filters.Exists(field):
            column = _EXISTS_COLUMNS.get(field)
            return f"({column})" if column else _has_any([keys.has(field)], layout)


def _text(node: filters.Text, layout: RowLayout) -> str:
    column = _TEXT_COLUMNS.get(node.field)
    if column is not None:
        return f"({column} in {_texts(node.values)})"
    name = filters.attribute_name(node.field)
    wanted = [keys.tag(v) if name is None else keys.attribute(name, v) for v in dict.fromkeys(node.values)]
    return _has_every(wanted, layout) if node.every else _has_any(wanted, layout)


def _has_any(wanted: Sequence[str], layout: RowLayout) -> str:
    if layout is RowLayout.NATIVE:
        return f"array_contains_any(keys, {_texts(wanted)})"
    return f"({' or '.join(_like(key) for key in wanted)})"


def _has_every(wanted: Sequence[str], layout: RowLayout) -> str:
    if layout is RowLayout.NATIVE:
        return f"array_contains_all(keys, {_texts(wanted)})"
    return f"({' and '.join(_like(key) for key in wanted)})"


def _like(key: str) -> str:
    return f'(keys like "% {key} %")'


def _range(node: filters.Range, layout: RowLayout) -> str:
    name = filters.attribute_name(node.field)
    if name is not None:
        return _attribute_range(name, node, layout)
    if node.field == "price":
        return _whole_range("price", node, MICROS_PER_UNIT)
    if node.field == "rating_count":
        return _whole_range("rating_count", node, 1)
    column = _FLOAT_COLUMNS[node.field]
    return f"({column} >= 0.0 and {' and '.join(_comparisons(column, node))})"


def _whole_range(column: str, node: filters.Range, scale: int) -> str:
    """A range over a column of non-negative whole numbers, in which -1 means "not known"."""
    low, high = 0, _INT64_MAX
    if node.at_least is not None:
        low = max(low, scaled(node.at_least, scale, ROUND_CEILING))
    if node.more_than is not None:
        low = max(low, scaled(node.more_than, scale, ROUND_FLOOR) + 1)
    if node.at_most is not None:
        high = min(high, scaled(node.at_most, scale, ROUND_FLOOR))
    if node.less_than is not None:
        high = min(high, scaled(node.less_than, scale, ROUND_CEILING) - 1)
    return f"({column} >= {low} and {column} <= {high})" if low <= high else NEVER


def _attribute_range(name: str, node: filters.Range, layout: RowLayout) -> str:
    """At least one number of the attribute lies in the range. The numbers are stored in order, so a range open at
    one end is decided by the smallest or the largest; one closed at both looks at each place there may be."""
    some = _has_any([keys.number(name, 0)], layout)
    has_low = node.at_least is not None or node.more_than is not None
    has_high = node.at_most is not None or node.less_than is not None
    if not (has_low and has_high):
        return _guarded(some, keys.largest(name) if has_low else keys.number(name, 0), node, layout)
    places = [keys.number(name, position) for position in range(schema.MAX_NUMBERS)]
    return f"({' or '.join(_guarded(_has_any([place], layout), place, node, layout) for place in places)})"


def _guarded(guard: str, place: str, node: filters.Range, layout: RowLayout) -> str:
    column = f'numbers["{place}"]' if layout is RowLayout.NATIVE else f'$meta["{place}"]'
    return f"({guard} and {' and '.join(_comparisons(column, node))})"


def _comparisons(column: str, node: filters.Range) -> list[str]:
    pairs = ((">=", node.at_least), (">", node.more_than), ("<=", node.at_most), ("<", node.less_than))
    return [f"{column} {operator} {_number(bound)}" for operator, bound in pairs if bound is not None]


def _number(value: float) -> str:
    text = repr(float(value))
    return text if "." in text or "e" in text else f"{text}.0"


def _time(node: filters.Time) -> str:
    parts = []
    if node.since is not None:
        parts.append(f"updated_at >= {schema.micros(node.since)}")
    if node.before is not None:
        parts.append(f"updated_at < {schema.micros(node.before)}")
    return f"({' and '.join(parts)})"


def _texts(values: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{_escape(value)}"' for value in values) + "]"


def _escape(text: str) -> str:
    """`text` for between double quotes. The rest of Unicode stands for itself in both grammars."""
    return text.translate(_ESCAPES)
