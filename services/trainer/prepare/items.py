"""The catalogue as Parquet: what a template may read of each item, so that the template can still change."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shared.catalogue import read_catalogue
from shared.items import Attribute, Item

_ROWS = 10_000
"""Items held in memory at a time."""
_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("brand", pa.string()),
        ("category_path", pa.list_(pa.string())),
        ("tags", pa.list_(pa.string())),
        ("attributes", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class CatalogueCounts:
    """What became of the rows of a catalogue file."""

    items: int
    rejected: int
    duplicates: int
    """Rows whose id an earlier row had. The later row stands."""


def write_items(source: Path, mapping: str | None, target: Path) -> CatalogueCounts:
    """Read a catalogue file and write `target`, items sorted as in the file.

    Raises `CatalogueError` when the file cannot be read.
    """
    reader = read_catalogue(source, mapping)
    with pq.ParquetWriter(target, _SCHEMA, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []
        for row in reader:
            if isinstance(row, Item):
                batch.append(_to_row(row))
            if len(batch) == _ROWS:
                writer.write_table(pa.Table.from_pylist(batch, _SCHEMA))
                batch.clear()
        writer.write_table(pa.Table.from_pylist(batch, _SCHEMA))
    return CatalogueCounts(reader.items - reader.duplicates, reader.rejected, reader.duplicates)


def read_items(path: Path) -> Iterator[Item]:
    """The items of a file that `write_items` wrote; of rows with one id the last stands, in its place."""
    with pq.ParquetFile(path) as file:
        ids = file.read(columns=["item_id"]).column(0).to_pylist()
        last = {item_id: index for index, item_id in enumerate(ids)}
        index = 0
        for batch in file.iter_batches(_ROWS):
            for row in batch.to_pylist():
                if last[row["item_id"]] == index:
                    yield _to_item(row)
                index += 1


def _to_row(item: Item) -> dict[str, Any]:
    attributes = {name: [list(value.text), list(value.numbers)] for name, value in item.attributes.items()}
    return {
        "item_id": item.id,
        "title": item.title,
        "description": item.description,
        "brand": item.brand,
        "category_path": list(item.category_path),
        "tags": list(item.tags),
        "attributes": json.dumps(attributes, ensure_ascii=False, sort_keys=True) if attributes else "",
    }


def _to_item(row: dict[str, Any]) -> Item:
    attributes = json.loads(row["attributes"]) if row["attributes"] else {}
    return Item(
        id=row["item_id"],
        title=row["title"],
        description=row["description"],
        brand=row["brand"],
        category_path=tuple(row["category_path"]),
        tags=tuple(row["tags"]),
        attributes={name: Attribute(tuple(text), tuple(numbers)) for name, (text, numbers) in attributes.items()},
    )
