"""`Item`, the one shape of a product inside Aisle's own code, and the rules a product must keep.

The wire has the same shape (`aisle.catalog.v1.Item`); `shared.rpc.items` converts between the two.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite

from shared.errors import FieldViolation

MAX_ID_BYTES = 128
"""Long enough for a UUID, a GTIN or a namespaced SKU; also the store's primary-key width."""
MAX_TITLE_CHARS = 1_000
MAX_DESCRIPTION_CHARS = 20_000
"""Encoders read the first few hundred tokens only; this keeps a stored payload under Milvus's 65,535-byte strings."""
MAX_CATEGORY_DEPTH = 8
MAX_TAGS = 64
MAX_ATTRIBUTES = 64
MAX_NAME_CHARS = 128
"""Bound on brands, category names, tags, attribute names and attribute values."""
MAX_PAYLOAD_BYTES = 48_000
"""Bound on a whole serialised item: stored as base64 it still fits one 65,535-byte string of the store."""

MICROS_PER_UNIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in `currency_code` (ISO 4217). `micros` = millionths of the currency's unit, so 19.99 is 19_990_000."""

    currency_code: str
    micros: int

    def __str__(self) -> str:
        return f"{self.currency_code} {self.micros / MICROS_PER_UNIT:,.2f}"


@dataclass(frozen=True, slots=True)
class Attribute:
    """A named property of an item: text values ("red", "blue"), numbers (2.5), or both."""

    text: Sequence[str] = ()
    numbers: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A product. Only `id` and `title` must be there; `None` or empty means "not known", never zero."""

    id: str
    title: str
    description: str = ""
    brand: str = ""
    category_path: Sequence[str] = ()
    """From the root down: ("Electronics", "Audio", "Headphones")."""
    price: Money | None = None
    in_stock: bool | None = None
    rating: float | None = None
    """Mean rating, 0 to 5."""
    rating_count: int | None = None
    popularity: float | None = None
    """Any non-negative score in which larger is more wanted (units sold, views, …)."""
    tags: Sequence[str] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    group_id: str = ""
    """The product family that variants share; empty for an item on its own."""
    language_code: str = ""
    """BCP 47; empty means English, or whatever script the text is in."""
    url: str = ""
    image_url: str = ""
    updated_at: datetime | None = None
    """When the source last changed the item (UTC). The latest wins."""


def violations(item: Item, at: str = "item") -> list[FieldViolation]:
    """Every rule `item` breaks, each naming its field below `at`; empty when the item can be stored."""
    found: list[FieldViolation] = []
    prefix = f"{at}." if at else ""

    def check(ok: bool, name: str, rule: str) -> None:
        if not ok:
            found.append(FieldViolation(prefix + name, rule))

    check(bool(item.id.strip()), "id", "must not be empty")
    check(len(item.id.encode()) <= MAX_ID_BYTES, "id", f"must be at most {MAX_ID_BYTES} bytes")
    check(bool(item.title.strip()), "title", "must not be empty")
    check(len(item.title) <= MAX_TITLE_CHARS, "title", f"must be at most {MAX_TITLE_CHARS} characters")
    check(
        len(item.description) <= MAX_DESCRIPTION_CHARS,
        "description",
        f"must be at most {MAX_DESCRIPTION_CHARS} characters",
    )
    check(len(item.brand) <= MAX_NAME_CHARS, "brand", f"must be at most {MAX_NAME_CHARS} characters")
    check(len(item.group_id.encode()) <= MAX_ID_BYTES, "group_id", f"must be at most {MAX_ID_BYTES} bytes")
    _check_names(check, item)
    _check_numbers(check, item)
    return found


Check = Callable[[bool, str, str], None]


def _check_names(check: Check, item: Item) -> None:
    for name, values, most in (
        ("category_path", item.category_path, MAX_CATEGORY_DEPTH),
        ("tags", item.tags, MAX_TAGS),
        ("attributes", tuple(item.attributes), MAX_ATTRIBUTES),
    ):
        check(len(values) <= most, name, f"must have at most {most} entries")
        check(
            all(v.strip() and len(v) <= MAX_NAME_CHARS for v in values),
            name,
            f"entries must not be empty and must be at most {MAX_NAME_CHARS} characters",
        )
    for name, attribute in item.attributes.items():
        check(
            all(v.strip() and len(v) <= MAX_NAME_CHARS for v in attribute.text),
            f"attributes[{name!r}].text",
            f"values must not be empty and must be at most {MAX_NAME_CHARS} characters",
        )
        check(all(map(isfinite, attribute.numbers)), f"attributes[{name!r}].numbers", "must be finite")


def _check_numbers(check: Check, item: Item) -> None:
    if item.price is not None:
        check(item.price.micros >= 0, "price", "must not be negative")
        code = item.price.currency_code
        check(
            len(code) == 3 and code.isascii() and code.isupper(),
            "price.currency_code",
            "must be an ISO 4217 code",
        )
    if item.rating is not None:
        check(isfinite(item.rating) and 0 <= item.rating <= 5, "rating", "must be between 0 and 5")
    if item.rating_count is not None:
        check(item.rating_count >= 0, "rating_count", "must not be negative")
    if item.popularity is not None:
        check(isfinite(item.popularity) and item.popularity >= 0, "popularity", "must be a non-negative number")
