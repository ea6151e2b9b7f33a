"""Items as JSON Lines: one object a line, read back by `read_catalogue` without a mapping."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from shared.items import MICROS_PER_UNIT, Attribute, Item

_FLOAT_IS_EXACT_BELOW = 10**15
"""Up to 15 digits, the shortest form of a float is the decimal that was meant."""


def item_to_record(item: Item) -> dict[str, object]:
    """`item` as JSON values under readable names. What is not known is left out."""
    record: dict[str, object] = {
        "id": item.id,
        "title": item.title,
        "description": item.description,
        "brand": item.brand,
        "category_path": list(item.category_path),
        "price": None if item.price is None else _amount(item.price.micros),
        "currency": None if item.price is None else item.price.currency_code,
        "in_stock": item.in_stock,
        "rating": item.rating,
        "rating_count": item.rating_count,
        "popularity": item.popularity,
        "tags": list(item.tags),
        "attributes": {name: _plain(a) for name, a in item.attributes.items()},
        "group_id": item.group_id,
        "language": item.language_code,
        "url": item.url,
        "image_url": item.image_url,
        "updated_at": None if item.updated_at is None else item.updated_at.isoformat().replace("+00:00", "Z"),
    }
    return {name: value for name, value in record.items() if value not in (None, "", [], {})}


def write_jsonl(items: Iterable[Item], path: Path) -> int:
    """Write `items` to `path` (`.gz` compresses), streaming; returns how many."""
    written = 0
    with _text_file(path) as out:
        for item in items:
            out.write(json.dumps(item_to_record(item), ensure_ascii=False) + "\n")
            written += 1
    return written


def _text_file(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "wt", encoding="utf-8")
    return path.open("w", encoding="utf-8")


def _amount(micros: int) -> float | str:
    if abs(micros) < _FLOAT_IS_EXACT_BELOW:
        return micros / MICROS_PER_UNIT
    units, rest = divmod(abs(micros), MICROS_PER_UNIT)
    return f"{'-' if micros < 0 else ''}{units}.{rest:06d}"


def _plain(attribute: Attribute) -> object:
    both = [*attribute.text, *attribute.numbers]
    return both[0] if len(both) == 1 else both
