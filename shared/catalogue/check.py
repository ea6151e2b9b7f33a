"""What a catalogue file holds, before anybody ingests it: `python -m shared.catalogue check PATH`."""

from collections.abc import Iterator
from itertools import islice

from shared.catalogue.errors import RowError
from shared.catalogue.readers import CatalogueReader
from shared.catalogue.rejections import Rejections
from shared.items import MICROS_PER_UNIT, Item

_SHOWN_ITEMS = 3
_DESCRIPTION_CHARS = 160


class Report:
    """Reads a catalogue to its end and describes it."""

    def __init__(self, reader: CatalogueReader) -> None:
        self._reader = reader
        self._samples: list[Item] = []
        self._rejections = Rejections()
        self._priced = 0
        self._whole_prices = 0
        self._categories: set[tuple[str, ...]] = set()

    def read(self) -> None:
        """Raises what reading raises."""
        for row in self._reader:
            if isinstance(row, RowError):
                self._rejections.add(row.why, row.where)
            else:
                self._note(row)

    def _note(self, item: Item) -> None:
        if len(self._samples) < _SHOWN_ITEMS:
            self._samples.append(item)
        if item.price is not None:
            self._priced += 1
            self._whole_prices += item.price.micros % MICROS_PER_UNIT == 0
        if item.category_path:
            self._categories.add(tuple(item.category_path))

    def lines(self) -> Iterator[str]:
        """The report, a line at a time."""
        reader = self._reader
        yield f"{reader.path}"
        yield f"  items       {reader.items - reader.duplicates:,} distinct, {len(self._categories):,} categories"
        yield f"  duplicates  {reader.duplicates:,} (of rows with one id the last is kept)"
        yield f"  rejected    {reader.rejected:,}"
        yield from (f"    {line}" for line in self._rejections.lines())
        if reader.trimmed:
            yield f"  trimmed     {reader.trimmed:,} items lost attributes that are too long or too many"
        yield "  fields"
        yield from self._columns()
        yield from self._hints()
        for number, item in enumerate(self._samples, 1):
            yield f"  item {number}"
            yield from (f"    {line}" for line in _shown(item))

    def _columns(self) -> Iterator[str]:
        binding = self._reader.binding
        for field, source in binding.fields.items():
            yield f"    {field} ← {source}"
        for name, source in binding.attributes.items():
            yield f"    attributes.{name} ← {source}"
        if binding.unused:
            yield f"    not used: {', '.join(islice(binding.unused, 40))}"

    def _hints(self) -> Iterator[str]:
        if self._priced >= _SHOWN_ITEMS and self._whole_prices == self._priced:
            column = self._reader.binding.fields["price"].column
            yield f"  hint        every price is a whole number; if they are cents, map price={column}/100"


def _shown(item: Item) -> Iterator[str]:
    yield f"{item.id}  {item.title}"
    facts = (
        " > ".join(item.category_path),
        item.brand,
        "" if item.price is None else str(item.price),
        ""
        if item.rating is None
        else f"{item.rating}/5" + ("" if item.rating_count is None else f" ({item.rating_count:,})"),
        {True: "in stock", False: "out of stock", None: ""}[item.in_stock],
    )
    yield "  ".join(filter(None, facts))
    if item.description:
        text = " ".join(item.description.split())
        yield text[:_DESCRIPTION_CHARS] + ("…" if len(text) > _DESCRIPTION_CHARS else "")
    if item.attributes:
        shown = islice(item.attributes.items(), 8)
        yield ", ".join(f"{name}={'|'.join(map(str, (*a.text, *a.numbers)))[:60]}" for name, a in shown)
