"""What a filter means, in plain Python over items: the reference that every home is held to."""

from collections.abc import Iterable
from decimal import Decimal

from services.vector_retrieval.filters import (
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
)
from shared.items import MICROS_PER_UNIT, Attribute, Item


def matches(node: Filter, item: Item) -> bool:
    match node:
        case AllOf(children):
            return all(matches(child, item) for child in children)
        case AnyOf(children):
            return any(matches(child, item) for child in children)
        case Not(child):
            return not matches(child, item)
        case Text(field, values, every):
            held = set(_texts(field, item))
            return set(values) <= held if every else bool(held.intersection(values))
        case Range(field):
            return any(_inside(node, number) for number in _numbers(field, item))
        case Time(_, since, before):
            at = item.updated_at
            return at is not None and (since is None or at >= since) and (before is None or at < before)
        case Category(path):
            return tuple(item.category_path[: len(path)]) == tuple(path)
        case InStock(value):
            return item.in_stock is value
        case Exists(field):
            return _exists(field, item)
    raise AssertionError(node)


def _texts(field: str, item: Item) -> Iterable[str]:
    if (name := attribute_name(field)) is not None:
        return item.attributes.get(name, Attribute()).text
    if field == "tags":
        return item.tags
    if field == "price.currency_code":
        return [item.price.currency_code] if item.price else []
    value = getattr(item, field)
    return [value] if value else []


def _numbers(field: str, item: Item) -> Iterable[Decimal]:
    if (name := attribute_name(field)) is not None:
        return [Decimal(repr(float(n))) for n in item.attributes.get(name, Attribute()).numbers]
    if field == "price":
        return [Decimal(item.price.micros) / MICROS_PER_UNIT] if item.price else []
    value = getattr(item, field)
    return [] if value is None else [Decimal(repr(value))]


def _inside(node: Range, number: Decimal) -> bool:
    return (
        (node.at_least is None or number >= Decimal(repr(node.at_least)))
        and (node.more_than is None or number > Decimal(repr(node.more_than)))
        and (node.at_most is None or number <= Decimal(repr(node.at_most)))
        and (node.less_than is None or number < Decimal(repr(node.less_than)))
    )


def _exists(field: str, item: Item) -> bool:
    if (name := attribute_name(field)) is not None:
        attribute = item.attributes.get(name, Attribute())
        return bool(attribute.text or attribute.numbers)
    value = getattr(item, field)
    return value is not None and value != "" and value != ()
