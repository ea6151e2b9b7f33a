"""Catalogue files: the bundled one, made by a deterministic generator, and the readers for anybody's own.

Knows neither gRPC nor protobuf. `python -m shared.catalogue --help` is its command line.
"""

from shared.catalogue.errors import (
    CatalogueError,
    MappingError,
    NoUsableRowError,
    RowError,
    UnreadableCatalogueError,
)
from shared.catalogue.mapping import Mapping
from shared.catalogue.readers import CatalogueReader, read_catalogue
from shared.catalogue.records import item_to_record, write_jsonl
from shared.catalogue.rejections import Rejections

__all__ = [
    "CatalogueError",
    "CatalogueReader",
    "Mapping",
    "MappingError",
    "NoUsableRowError",
    "Rejections",
    "RowError",
    "UnreadableCatalogueError",
    "item_to_record",
    "read_catalogue",
    "write_jsonl",
]
