"""`aisle.catalog.v1.Item` ↔ `shared.items.Item`. Pure conversion: the rules are in `shared.items.violations`."""

from datetime import UTC, datetime

from aisle.catalog.v1 import item_pb2

from shared.errors import InvalidArgumentError
from shared.items import MICROS_PER_UNIT, Attribute, Item, Money

_NANOS_PER_MICRO = 1_000


def item_from_proto(pb: item_pb2.Item, at: str = "item") -> Item:
    """The domain's form of `pb`.

    Raises `InvalidArgumentError` naming the field below `at` for what the domain's form cannot hold: money
    finer than a millionth or with mixed signs, a timestamp out of range.
    """
    prefix = f"{at}." if at else ""
    return Item(
        id=pb.id,
        title=pb.title,
        description=pb.description,
        brand=pb.brand,
        category_path=tuple(pb.category_path),
        price=money_from_proto(pb.price, f"{prefix}price") if pb.HasField("price") else None,
        in_stock=pb.in_stock if pb.HasField("in_stock") else None,
        rating=pb.rating if pb.HasField("rating") else None,
        rating_count=pb.rating_count if pb.HasField("rating_count") else None,
        popularity=pb.popularity if pb.HasField("popularity") else None,
        tags=tuple(pb.tags),
        attributes={name: Attribute(tuple(a.text), tuple(a.numbers)) for name, a in pb.attributes.items()},
        group_id=pb.group_id,
        language_code=pb.language_code,
        url=pb.url,
        image_url=pb.image_url,
        updated_at=_time_from_proto(pb, f"{prefix}updated_at") if pb.HasField("updated_at") else None,
    )


def item_to_proto(item: Item) -> item_pb2.Item:
    """The wire's form of `item`."""
    pb = item_pb2.Item(
        id=item.id,
        title=item.title,
        description=item.description,
        brand=item.brand,
        category_path=item.category_path,
        price=money_to_proto(item.price) if item.price is not None else None,
        in_stock=item.in_stock,
        rating=item.rating,
        rating_count=item.rating_count,
        popularity=item.popularity,
        tags=item.tags,
        attributes={name: item_pb2.Attribute(text=a.text, numbers=a.numbers) for name, a in item.attributes.items()},
        group_id=item.group_id,
        language_code=item.language_code,
        url=item.url,
        image_url=item.image_url,
    )
    if item.updated_at is not None:
        pb.updated_at.FromDatetime(item.updated_at.astimezone(UTC))
    return pb


def money_from_proto(pb: item_pb2.Money, at: str) -> Money:
    """Raises `InvalidArgumentError` naming `at` where `nanos` is out of range, finer than a millionth, or of
    the other sign than `units`."""
    if abs(pb.nanos) >= 1_000_000_000:
        raise InvalidArgumentError.of(f"{at}.nanos", "must be between -999,999,999 and 999,999,999")
    if pb.nanos % _NANOS_PER_MICRO:
        raise InvalidArgumentError.of(f"{at}.nanos", "must be whole millionths (a multiple of 1,000)")
    if pb.units * pb.nanos < 0:
        raise InvalidArgumentError.of(f"{at}.nanos", "must have the sign of units")
    return Money(pb.currency_code, pb.units * MICROS_PER_UNIT + int(pb.nanos / _NANOS_PER_MICRO))


def money_to_proto(money: Money) -> item_pb2.Money:
    """The wire's form of `money`."""
    sign = -1 if money.micros < 0 else 1
    units, micros = divmod(abs(money.micros), MICROS_PER_UNIT)
    return item_pb2.Money(currency_code=money.currency_code, units=sign * units, nanos=sign * micros * _NANOS_PER_MICRO)


def _time_from_proto(pb: item_pb2.Item, at: str) -> datetime:
    try:
        return pb.updated_at.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidArgumentError.of(at, "must lie between the years 1 and 9999") from None
