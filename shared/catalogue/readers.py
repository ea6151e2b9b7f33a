"""`read_catalogue`: a catalogue file as a stream of items, whatever its format.

    reader = read_catalogue(Path("products.csv"), Mapping.parse("title=name,price=cents/100"))
    for row in reader:
        if isinstance(row, RowError):
            print(row)
        else:
            store(row)
    print(reader.items, reader.rejected, reader.duplicates)

Memory is bounded whatever the size of the file: a row at a time, plus 16 to 32 bytes a distinct id to count
duplicates.

Duplicates: every row is yielded in the order of the file, so of two rows with one id the later one stands,
provided that the consumer upserts in order. A first pass to drop the earlier rows would read (and unpack) the
file twice to save writes that are rare. A later row that is rejected leaves the earlier one standing.
"""

from array import array
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from shared.catalogue.convert import Converter
from shared.catalogue.errors import NoUsableRowError, RowError, RowProblem
from shared.catalogue.mapping import Binding, Mapping
from shared.catalogue.tables import Row, Table, open_table
from shared.items import Item

_PEEKED_ROWS = 100
"""Rows of JSON Lines looked at before the first is yielded: not every column need be in row one."""
_REASONS_TOLD = 3


def read_catalogue(path: Path | str, mapping: Mapping | str | None = None) -> "CatalogueReader":
    """Open `path` (`.jsonl`, `.csv`, each also `.gz` or `.zip`, or `.parquet`) and iterate over its rows.

    Raises `UnreadableCatalogueError` or `MappingError` here, before the first row, where the file or `mapping`
    is at fault. While iterating: `UnreadableCatalogueError` where the file turns out damaged, and at its end
    `NoUsableRowError` if it gave no item, or `MappingError` if no row of JSON Lines had a column of `mapping`.
    """
    parsed = Mapping.parse(mapping) if isinstance(mapping, str) else mapping or Mapping()
    return CatalogueReader(Path(path), parsed)


class CatalogueReader(Iterator[Item | RowError]):
    """Yields an `Item` or a `RowError` a row. The counts are right at any time, and final at the end."""

    def __init__(self, path: Path, mapping: Mapping) -> None:
        self.path = path
        self.items = 0
        """Rows that were an item, duplicates included."""
        self.rejected = 0
        self.duplicates = 0
        """Items whose id an earlier row had; the file holds `items - duplicates` distinct items."""
        self._table = open_table(path)
        self._ids = _IdSet()
        self._first_errors: list[RowError] = []
        try:
            self.binding, self._rows = _bind(self._table, mapping)
        except BaseException:
            self.close()
            raise
        self._converter = Converter(self.binding, self._table.untyped)

    @property
    def trimmed(self) -> int:
        """Items that lost attributes too long or too many to store."""
        return self._converter.trimmed

    @property
    def fraction_read(self) -> float:
        """How far the reader is through the file, 0 to 1: for progress bars."""
        return self._table.fraction_read()

    def __next__(self) -> Item | RowError:
        try:
            line, row = next(self._rows)
        except StopIteration:
            self.close()
            self.binding.finish()
            if not self.items:
                raise self._nothing_usable() from None
            raise
        except BaseException:
            self.close()
            raise
        try:
            if isinstance(row, RowProblem):
                raise row
            self.binding.extend(row)
            item = self._converter.item(row)
        except RowProblem as problem:
            return self._reject(RowError(line, problem.field, problem.reason))
        self.items += 1
        self.duplicates += not self._ids.add(item.id)
        return item

    def close(self) -> None:
        """Release the file; for those who stop early. Exhausting the reader does it too."""
        self._table.close()

    def __enter__(self) -> "CatalogueReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reject(self, error: RowError) -> RowError:
        self.rejected += 1
        if len(self._first_errors) < _REASONS_TOLD:
            self._first_errors.append(error)
        return error

    def _nothing_usable(self) -> NoUsableRowError:
        if not self.rejected:
            return NoUsableRowError(f"{self.path}: holds no rows")
        reasons = "; ".join(map(str, self._first_errors))
        return NoUsableRowError(f"{self.path}: none of {self.rejected} rows is usable. The first: {reasons}")


def _bind(table: Table, mapping: Mapping) -> tuple[Binding, Iterator[Row]]:
    if table.columns is not None:
        return Binding.of(mapping, table.columns), table.rows
    peeked = list(islice(table.rows, _PEEKED_ROWS))
    columns = dict.fromkeys(c for _, row in peeked if not isinstance(row, RowProblem) for c in row)
    complete = bool(columns) and len(peeked) < _PEEKED_ROWS
    binding = Binding.of(mapping, tuple(columns), complete=complete)
    return binding, _chained(peeked, table.rows)


def _chained(peeked: list[Row], rest: Iterator[Row]) -> Iterator[Row]:
    yield from peeked
    peeked.clear()
    yield from rest


class _IdSet:
    """Which ids were seen, as 64-bit hashes in an open-addressed table: far less than a `set` of texts takes.

    Among a million ids, the chance that any two share a hash is about one in 40 million.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._used = 0

    def add(self, key: str) -> bool:
        """True if `key` is new."""
        if self._used * 2 >= len(self._slots):
            self._grow()
        digest = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") or 1
        return self._insert(digest)

    def _insert(self, digest: int) -> bool:
        mask = len(self._slots) - 1
        at = digest & mask
        while (held := self._slots[at]) != 0:
            if held == digest:
                return False
            at = (at + 1) & mask
        self._slots[at] = digest
        self._used += 1
        return True

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", bytes(8 * len(old) * 2))
        self._used = 0
        for digest in old:
            if digest:
                self._insert(digest)
