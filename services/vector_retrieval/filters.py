"""Filters: typed conditions on items, and the rules a filter must keep.

    AllOf, AnyOf, Not                             combine
    Text, Range, Time, Category, InStock, Exists  test one field

A condition on a value that an item lacks does not hold, so its `Not` does. `expressions` says the same in the
store's language.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import TypeAlias

from shared.errors import FieldViolation
from shared.items import MAX_CATEGORY_DEPTH, MAX_NAME_CHARS

MAX_DEPTH = 8
"""Levels, the outermost filter being the first: more than people write, few enough for any parser's stack."""
MAX_CONDITIONS = 256
MAX_VALUES = 2_000
"""Bound on all text values of a filter together: keeps the store's expression to some tens of kilobytes."""

ATTRIBUTE_PREFIX = "attributes."

SINGLE_TEXT_FIELDS = frozenset({"id", "brand", "group_id", "language_code", "price.currency_code"})
MANY_TEXT_FIELDS = frozenset({"tags"})
RANGE_FIELDS = frozenset({"price", "rating", "rating_count", "popularity"})
TIME_FIELDS = frozenset({"updated_at"})
EXISTS_FIELDS = frozenset(
    {
        *("id", "title", "description", "brand", "category_path", "price", "in_stock", "rating", "rating_count"),
        *("popularity", "tags", "group_id", "language_code", "url", "image_url", "updated_at"),
    }
)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one holds."""

    filters: Sequence["Filter"]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one holds."""

    filters: Sequence["Filter"]


@dataclass(frozen=True, slots=True)
class Not:
    """It does not hold."""

    filter: "Filter"


@dataclass(frozen=True, slots=True)
class Text:
    """A text field has one of `values`, or, where the field holds many and `every` is set, each of them."""

    field: str
    values: Sequence[str]
    every: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """A number lies within the bounds that are given. Of a field of many numbers, at least one does."""

    field: str
    at_least: float | None = None
    more_than: float | None = None
    at_most: float | None = None
    less_than: float | None = None

    @property
    def bounds(self) -> tuple[float, ...]:
        """The bounds that are given."""
        given = (self.at_least, self.more_than, self.at_most, self.less_than)
        return tuple(b for b in given if b is not None)


@dataclass(frozen=True, slots=True)
class Time:
    """A time field lies in [since, before)."""

    field: str
    since: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Category:
    """The item lies at or below `path`, which starts at the root."""

    path: Sequence[str]


@dataclass(frozen=True, slots=True)
class InStock:
    """Stock is known, and is `value`."""

    value: bool


@dataclass(frozen=True, slots=True)
class Exists:
    """The field has a value."""

    field: str


Condition: TypeAlias = Text | Range | Time | Category | InStock | Exists
Filter: TypeAlias = AllOf | AnyOf | Not | Condition


def violations(root: Filter, at: str = "filter") -> list[FieldViolation]:
    """Every rule `root` breaks, each naming its place below `at` as the wire spells it."""
    found: list[FieldViolation] = []
    conditions = values = 0
    for condition, depth, path in _walk(root, 1, at):
        if depth > MAX_DEPTH:
            return [FieldViolation(at, f"must nest at most {MAX_DEPTH} deep")]
        if condition is None:
            found.append(FieldViolation(path, "must have at least one filter"))
            continue
        conditions += 1
        values += len(condition.values) if isinstance(condition, Text) else 0
        found.extend(_broken_rules(condition, path))
    if conditions > MAX_CONDITIONS:
        found.append(FieldViolation(at, f"must have at most {MAX_CONDITIONS} conditions"))
    if values > MAX_VALUES:
        found.append(FieldViolation(at, f"must have at most {MAX_VALUES} text values in all"))
    return found


def attribute_name(field: str) -> str | None:
    """The name in `attributes.<name>`; `None` for any other field."""
    name = field.removeprefix(ATTRIBUTE_PREFIX)
    return name if field.startswith(ATTRIBUTE_PREFIX) and name.strip() else None


def _walk(node: Filter, depth: int, path: str) -> Iterator[tuple[Condition | None, int, str]]:
    """Each condition with its depth and place; `None` stands for a list without filters."""
    if isinstance(node, Not):
        yield from _walk(node.filter, depth + 1, f"{path}.negate")
    elif isinstance(node, AllOf | AnyOf):
        name = "all_of" if isinstance(node, AllOf) else "any_of"
        if not node.filters:
            yield None, depth, f"{path}.{name}.filters"
        for index, child in enumerate(node.filters):
            yield from _walk(child, depth + 1, f"{path}.{name}.filters[{index}]")
    else:
        yield node, depth, path


def _broken_rules(condition: Condition, at: str) -> Iterator[FieldViolation]:
    match condition:
        case Text():
            yield from _text_rules(condition, f"{at}.text")
        case Range():
            yield from _range_rules(condition, f"{at}.range")
        case Time():
            yield from _time_rules(condition, f"{at}.time")
        case Category(path):
            if not 1 <= len(path) <= MAX_CATEGORY_DEPTH:
                yield FieldViolation(f"{at}.category.path", f"must have 1 to {MAX_CATEGORY_DEPTH} entries")
            if not all(part.strip() and len(part) <= MAX_NAME_CHARS for part in path):
                yield FieldViolation(
                    f"{at}.category.path",
                    f"entries must not be empty and must be at most {MAX_NAME_CHARS} characters",
                )
        case Exists(field):
            yield from _known(field, EXISTS_FIELDS, f"{at}.exists")


def _text_rules(condition: Text, at: str) -> Iterator[FieldViolation]:
    yield from _known(condition.field, SINGLE_TEXT_FIELDS | MANY_TEXT_FIELDS, f"{at}.field")
    if not condition.values:
        yield FieldViolation(f"{at}.values", "must have at least one value")
    if not all(condition.values):
        yield FieldViolation(f"{at}.values", "must not hold an empty text; ask for `exists` instead")
    if condition.every and condition.field in SINGLE_TEXT_FIELDS:
        yield FieldViolation(f"{at}.all", f"{condition.field} has one value only")


def _range_rules(condition: Range, at: str) -> Iterator[FieldViolation]:
    yield from _known(condition.field, RANGE_FIELDS, f"{at}.field")
    if not condition.bounds:
        yield FieldViolation(at, "must have at least one bound")
    if not all(map(isfinite, condition.bounds)):
        yield FieldViolation(at, "bounds must be finite")


def _time_rules(condition: Time, at: str) -> Iterator[FieldViolation]:
    if condition.field not in TIME_FIELDS:
        yield FieldViolation(f"{at}.field", f"must be one of {', '.join(sorted(TIME_FIELDS))}")
    if condition.since is None and condition.before is None:
        yield FieldViolation(at, "must have at least one bound")


def _known(field: str, fields: frozenset[str], at: str) -> Iterator[FieldViolation]:
    if field not in fields and attribute_name(field) is None:
        yield FieldViolation(at, f"must be one of {', '.join(sorted(fields))}, attributes.<name>")
