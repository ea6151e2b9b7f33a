"""One row → one `Item`, by a `Binding`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from shared.catalogue import values
from shared.catalogue.errors import RowProblem
from shared.catalogue.mapping import Binding
from shared.items import (
    MAX_ATTRIBUTES,
    MAX_NAME_CHARS,
    MICROS_PER_UNIT,
    Attribute,
    Item,
    Money,
    violations,
)

Row = Mapping[str, object]
T = TypeVar("T")

DEFAULT_CURRENCY = "USD"
_MAX_MICROS = 10**12 * MICROS_PER_UNIT
_MAX_COUNT = 2**63 - 1


@dataclass(slots=True)
class Converter:
    """Reads rows by `binding`. `untyped` says that the file knows text only (CSV)."""

    binding: Binding
    untyped: bool = False
    trimmed: int = 0
    """Items that lost attributes too long or too many to store; they are still worth selling."""

    def item(self, row: Row) -> Item:
        """Raises `RowProblem` for the first field at fault."""
        item = Item(
            id=self._text(row, "id"),
            title=self._text(row, "title"),
            description=self._text(row, "description"),
            brand=self._text(row, "brand"),
            category_path=values.words(self._cell(row, "category_path"), "category_path", ">|"),
            price=self._price(row),
            in_stock=self._read(row, "in_stock", values.stock),
            rating=self._number(row, "rating"),
            rating_count=self._read(row, "rating_count", values.count),
            popularity=self._number(row, "popularity"),
            # A path may repeat a name (Toys > Games > Games); a tag said twice says nothing more.
            tags=tuple(dict.fromkeys(values.words(self._cell(row, "tags"), "tags", "|;,"))),
            attributes=self._attributes(row),
            group_id=self._text(row, "group_id"),
            language_code=self._text(row, "language"),
            url=self._text(row, "url"),
            image_url=self._text(row, "image_url"),
            updated_at=self._read(row, "updated_at", values.timestamp),
        )
        broken = violations(item)
        if broken:
            raise RowProblem(broken[0].field.removeprefix("item."), broken[0].description)
        if item.rating_count is not None and item.rating_count > _MAX_COUNT:
            raise RowProblem("rating_count", "is out of range")
        return item

    def _cell(self, row: Row, target: str) -> object:
        source = self.binding.fields.get(target)
        if source is None:
            return None
        return row.get(source.column) if source.constant is None else source.constant

    def _read(self, row: Row, target: str, reader: Callable[[object, str], T]) -> T:
        return reader(self._cell(row, target), target)

    def _text(self, row: Row, target: str) -> str:
        return values.text(self._cell(row, target), target)

    def _number(self, row: Row, target: str) -> float | None:
        source = self.binding.fields.get(target)
        return values.number(self._cell(row, target), target, source.divisor if source else 1)

    def _price(self, row: Row) -> Money | None:
        source = self.binding.fields.get("price")
        if source is None:
            return None
        amount = values.money(self._cell(row, "price"), source.divisor)
        if amount is None:
            return None
        micros, currency = amount
        if micros > _MAX_MICROS:
            raise RowProblem("price", "is out of range")
        # What a column or the caller says beats a symbol in the text: "$" is not always the same dollar.
        said = values.text(self._cell(row, "currency"), "currency").upper()
        return Money(said or currency or DEFAULT_CURRENCY, micros)

    def _attributes(self, row: Row) -> dict[str, Attribute]:
        # Those with a column of their own go first: they are the ones that trimming must not reach.
        found = {
            values.text(name, "attributes"): content
            for name, source in self.binding.attributes.items()
            if (content := values.attribute(row.get(source.column), untyped=self.untyped)) != Attribute()
        }
        for name, content in values.attributes(self._cell(row, "attributes")).items():
            found.setdefault(name, content)
        kept = dict([pair for pair in found.items() if _fits(*pair)][:MAX_ATTRIBUTES])
        self.trimmed += len(kept) < len(found)
        return kept


def _fits(name: str, content: Attribute) -> bool:
    return len(name) <= MAX_NAME_CHARS and all(len(t) <= MAX_NAME_CHARS for t in content.text)
