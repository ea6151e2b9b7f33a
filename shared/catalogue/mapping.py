"""Which column feeds which field of an `Item`.

    id=product_id,title=name            columns by name; case, spaces and underscores do not matter
    price=price/100                     divided first: a price in cents (also: rating, popularity)
    currency==EUR                       a constant (all fields but id, title and attributes)
    attributes.color=attr_colour        one attribute from one column
    attributes=specs                    all attributes from a column that holds a JSON object
    description=                        left out, although a column would fit
    "title=Name, long"                  an entry with a comma is quoted

What a mapping does not name is found by the usual names of columns (`ALIASES`).
"""

import csv
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from shared.catalogue.errors import MappingError

ALIASES: dict[str, tuple[str, ...]] = {
    "id": (
        "id", "item_id", "product_id", "sku", "stock_code", "article_id", "article_number", "offer_id",
        "asin", "product_uid", "uid", "product_code", "item_code", "part_number", "handle", "gtin", "ean", "upc",
    ),
    "title": ("title", "name", "product_title", "product_name", "item_title", "item_name", "display_name"),
    "description": (
        "description", "long_description", "product_description", "item_description", "short_description",
        "body", "summary", "details",
    ),
    "brand": ("brand", "brand_name", "supplier", "manufacturer", "vendor", "maker"),
    "category_path": (
        "category_path", "categories", "category", "category_name", "product_category", "item_category",
        "google_product_category", "product_type", "breadcrumbs", "breadcrumb", "department",
    ),
    "price": (
        "price", "current_price", "unit_price", "selling_price", "sell_price", "price_amount", "list_price",
    ),
    "currency": ("currency", "currency_code", "price_currency"),
    "in_stock": (
        "in_stock", "is_in_stock", "availability", "available", "stock", "stock_quantity", "quantity",
        "quantity_in_stock", "inventory", "qty",
    ),
    "rating": (
        "rating", "average_rating", "avg_rating", "mean_rating", "review_rating", "review_score",
        "rating_value", "stars",
    ),
    "rating_count": (
        "rating_count", "ratings_count", "number_of_ratings", "num_ratings", "rating_number", "review_count",
        "reviews_count", "number_of_reviews", "num_reviews", "reviews",
    ),
    "popularity": ("popularity", "popularity_score", "units_sold", "sales_count", "sales", "views"),
    "tags": ("tags", "labels", "keywords"),
    "attributes": ("attributes", "specs", "specifications", "product_attributes", "properties"),
    "group_id": ("group_id", "item_group_id", "variant_group", "parent_id", "parent_sku", "parent_asin"),
    "language": ("language", "language_code", "lang", "locale"),
    "url": ("url", "link", "product_url", "product_link", "page_url"),
    "image_url": ("image_url", "image", "image_link", "img", "img_url", "main_image", "picture", "thumbnail"),
    "updated_at": ("updated_at", "last_updated", "last_modified", "modified_at", "update_time", "updated"),
}  # fmt: skip
"""Each field and the columns it is taken from by default, the best first."""

_CENTS = {"price_cents": 100, "price_in_cents": 100, "price_pence": 100, "price_micros": 1_000_000}
"""Columns whose very name says what to divide by. As targets they mean the same: `price_cents=amount`."""
_FLAT_ATTRIBUTES = {
    "color": "color", "colour": "color", "size": "size", "material": "material", "pattern": "pattern",
    "gender": "gender", "age_group": "age_group",
}  # fmt: skip
"""The attribute columns that merchant feeds have beside the fields."""
_SYNONYMS = {"category": "category_path", "language_code": "language", "currency_code": "currency"}
_DIVISIBLE = ("price", "rating", "popularity")
_NO_CONSTANT = ("id", "title", "attributes")
_REQUIRED = ("id", "title")
_ATTRIBUTE = "attributes."
_MOST_COLUMNS = 2_000
"""Of JSON Lines. More are no columns but values used as names, a new one in every row; they would all be kept."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a field's value comes from: a column, perhaps divided, or a constant."""

    column: str = ""
    divisor: int = 1
    constant: str | None = None

    def __str__(self) -> str:
        if self.constant is not None:
            return f"the constant {self.constant!r}"
        return f"{self.column} / {self.divisor}" if self.divisor != 1 else self.column


@dataclass(frozen=True, slots=True)
class Mapping:
    """What the caller said, by target; the rest is left to `ALIASES`. None: leave the target out."""

    sources: dict[str, Source | None] = field(default_factory=dict)

    @classmethod
    def parse(cls, spec: str) -> "Mapping":
        """Read `id=product_id,title=name,…`. Raises `MappingError` naming the entry and the remedy."""
        try:
            # Spaces around the commas are how people write lists; names with inner spaces stay whole.
            entries = next(csv.reader([spec.replace("\n", ",")], skipinitialspace=True, strict=True), [])
        except csv.Error as error:
            raise MappingError(f"the mapping cannot be read: {error}") from None
        sources: dict[str, Source | None] = {}
        for entry in filter(None, map(str.strip, entries)):
            target, source = _entry(entry)
            if target in sources:
                raise MappingError(f"the mapping names {target!r} twice")
            sources[target] = source
        return cls(sources)


def _entry(entry: str) -> tuple[str, Source | None]:
    name, equals, source = (part.strip() for part in entry.partition("="))
    if not equals:
        raise MappingError(f"mapping entry {entry!r} has no '='; write field=column, for example title=name")
    target, divisor = _target(name)
    if not source:
        return target, None
    if source.startswith("="):
        if target in _NO_CONSTANT or target.startswith(_ATTRIBUTE) or divisor != 1:
            raise MappingError(f"{name} cannot be a constant: it must come from a column")
        return target, Source(constant=source[1:].strip())
    return target, Source(source, divisor)


def _target(name: str) -> tuple[str, int]:
    if name.startswith(_ATTRIBUTE) and name != _ATTRIBUTE:
        return name, 1
    if name in _CENTS:
        return "price", _CENTS[name]
    target = _SYNONYMS.get(name, name)
    if target in ALIASES:
        return target, 1
    close = difflib.get_close_matches(name, ALIASES, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    choices = ", ".join((*ALIASES, "price_cents", "attributes.NAME"))
    raise MappingError(f"unknown field {name!r} in the mapping{hint}; the fields are {choices}")


@dataclass(slots=True)
class Binding:
    """A mapping applied to the columns that a file has."""

    mapping: Mapping
    fields: dict[str, Source] = field(default_factory=dict)
    attributes: dict[str, Source] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    """Every column seen, in the order of the file."""
    _known: set[str] = field(default_factory=set)
    _pending: dict[str, Source] = field(default_factory=dict)
    """Mapped to a column that no row had so far."""

    @classmethod
    def of(cls, mapping: Mapping, columns: Sequence[str], *, complete: bool = True) -> "Binding":
        """Raises `MappingError` for a mapped column that the file lacks, and for no id or title.

        Where `columns` are not `complete`, later rows may have what not every item needs: see `extend`, `finish`.
        """
        binding = cls(mapping)
        binding._note(columns)
        binding._pending = {target: source for target, source in mapping.sources.items() if source is not None}
        binding._settle(columns)
        for target, source in binding._pending.items():
            if complete or (columns and target in _REQUIRED):
                raise binding._lacking(target, source)
        binding._fill(columns)
        binding._title_from_description()
        for target in _REQUIRED:
            if target not in binding.fields and columns:
                raise MappingError(
                    f"no column gives the {target}; say which with {target}=COLUMN. The columns are {_listed(columns)}"
                )
        return binding

    def extend(self, columns: Iterable[str]) -> None:
        """Take in columns that turn up in later rows (JSON Lines). They fill gaps and never move a field that
        has a source: one column means one thing throughout a file. Beyond `_MOST_COLUMNS` there are no more, but
        for those that were mapped. Raises `MappingError` where a mapped one could be either of two."""
        new = [c for c in columns if c not in self._known]
        if not new:
            return
        self._settle(new)
        if len(self.columns) < _MOST_COLUMNS:
            self._note(new)
            self._fill(new)

    def finish(self) -> None:
        """At the end of the file. Raises `MappingError` for a mapped column that no row had."""
        # Without any column no row was readable, and that is what is wrong.
        if self._pending and self.columns:
            raise self._lacking(*next(iter(self._pending.items())))

    @property
    def unused(self) -> list[str]:
        """Columns that feed nothing."""
        used = {s.column for s in (*self.fields.values(), *self.attributes.values())}
        return [c for c in self.columns if c not in used]

    def _note(self, columns: Iterable[str]) -> None:
        for column in columns:
            if column not in self._known:
                self._known.add(column)
                self.columns.append(column)

    def _settle(self, columns: Sequence[str]) -> None:
        for target, source in list(self._pending.items()):
            resolved = source if source.constant is not None else _resolve(target, source, columns)
            if resolved is None:
                continue
            del self._pending[target]
            if target.startswith(_ATTRIBUTE):
                self.attributes[target.removeprefix(_ATTRIBUTE)] = resolved
            else:
                self.fields[target] = resolved

    def _lacking(self, target: str, source: Source) -> MappingError:
        close = difflib.get_close_matches(source.column, self.columns, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return MappingError(
            f"{target} is mapped to column {source.column!r}, which the file does not have{hint}; "
            f"the columns are {_listed(self.columns)}"
        )

    def _fill(self, columns: Sequence[str]) -> None:
        taken = {s.column for s in (*self.fields.values(), *self.attributes.values())}
        free = {_plain(c): c for c in reversed(columns) if c not in taken}
        said = self.mapping.sources
        for target, aliases in ALIASES.items():
            if target in said or target in self.fields:
                continue
            alias = next((a for a in aliases if _plain(a) in free), None)
            if alias is not None:
                self.fields[target] = Source(free.pop(_plain(alias)))
        if "price" not in said and "price" not in self.fields:
            name = next((n for n in _CENTS if _plain(n) in free), None)
            if name is not None:
                self.fields["price"] = Source(free.pop(_plain(name)), _CENTS[name])
        for column in columns:
            name = _attribute_name(column)
            if name and column in free.values() and name not in self.attributes and _ATTRIBUTE + name not in said:
                self.attributes[name] = Source(column)

    def _title_from_description(self) -> None:
        """Shops whose only text is a short description mean it as the title."""
        if not {"title", "description"} & self.mapping.sources.keys() and "title" not in self.fields:
            description = self.fields.pop("description", None)
            if description is not None:
                self.fields["title"] = description


def _resolve(target: str, source: Source, columns: Sequence[str]) -> Source | None:
    """`source` by the name its column has among `columns`; None where it is not among them."""
    found = _find(source.column, columns)
    divided = re.fullmatch(r"(?P<column>.*\S)\s*/\s*(?P<by>[1-9]\d{0,8})", source.column)
    if found is None and divided is not None:
        if target not in _DIVISIBLE:
            raise MappingError(f"{target} cannot be divided; only {', '.join(_DIVISIBLE)} can")
        found = _find(divided["column"], columns)
        source = Source(divided["column"], source.divisor * int(divided["by"]))
    return None if found is None else Source(found, source.divisor)


def _attribute_name(column: str) -> str:
    if column.startswith(_ATTRIBUTE):
        return column.removeprefix(_ATTRIBUTE).strip()
    return _FLAT_ATTRIBUTES.get(column.strip().lower().replace(" ", "_"), "")


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _find(name: str, columns: Sequence[str]) -> str | None:
    if name in columns:
        return name
    alike = [c for c in columns if _plain(c) == _plain(name)]
    if len(alike) > 1:
        raise MappingError(f"column {name!r} could be {' or '.join(map(repr, alike))}; write it as the file does")
    return alike[0] if alike else None


def _listed(columns: Sequence[str], most: int = 40) -> str:
    more = f" and {len(columns) - most} more" if len(columns) > most else ""
    return ", ".join(columns[:most]) + more if columns else "none"
