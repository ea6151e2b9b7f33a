"""How an item lies in the store: the fields of a collection, and the row an item becomes.

    id            the item's own
    vector        as given; compared by cosine
    lexical       its words (`lexical`), and sparse, their BM25 weights, made by stores that can
    keys          what it has many of or may have: tags, attribute values, … (`keys`)
    numbers       attribute numbers in order, under the keys that say where (dynamic fields on Milvus Lite)
    brand, category, price, …   one value each; "" or -1 where it is not known
    payload       the whole item, opaque here: the catalogue's source of truth

"Not known" is a value of its own in each column, because stores before Milvus 2.5 have no nullable fields. Times are
microseconds since 1970, as exact as an item's own.
"""

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pybase64
from pymilvus import CollectionSchema, DataType, Function, FunctionType
from pymilvus.milvus_client.index import IndexParams

from services.vector_retrieval import keys, lexical
from services.vector_retrieval.capabilities import Capabilities, RowLayout
from shared.errors import FieldViolation
from shared.items import MAX_ID_BYTES, MAX_NAME_CHARS, MAX_PAYLOAD_BYTES, Attribute, Item

MAX_KEYS = 2_048
"""Tags, attribute names, texts and numbers of one item together."""
MAX_NUMBERS = 16
"""Different numbers of one attribute: a range closed at both ends looks at each."""

_MAX_STRING_BYTES = 65_535
_UTF8_BYTES = 4
_SEPARATOR = "\x1f"
_UNKNOWN = -1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# LIKE reads % and _ as wildcards and \ as an escape, and servers differ in how; the separator splits levels. Each is
# spelled out, and so is the character that begins a spelling.
_CATEGORY_ESCAPES = str.maketrans({c: f"~{ord(c):x};" for c in "%_\\~" + _SEPARATOR})
_CATEGORY_ESCAPE = re.compile("~([0-9a-f]+);")
_MAX_ESCAPED_CHARS = 4

_OPTIONAL_TEXTS = ("description", "url", "image_url")


Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Row:
    """An item, its vector, and the bytes it is read back as. `item.updated_at` must be set."""

    item: Item
    vector: Vectors
    payload: bytes


def collection_schema(dimensions: int, can: Capabilities) -> CollectionSchema:
    """The fields of a generation whose vectors have `dimensions` components."""
    schema = CollectionSchema(
        [], auto_id=False, enable_dynamic_field=can.row_layout is RowLayout.FLAT, check_fields=False
    )
    names = MAX_NAME_CHARS * _UTF8_BYTES
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimensions)
    schema.add_field("brand", DataType.VARCHAR, max_length=names)
    schema.add_field("category", DataType.VARCHAR, max_length=8 * (names * _MAX_ESCAPED_CHARS + 1))
    schema.add_field("price", DataType.INT64)
    schema.add_field("currency", DataType.VARCHAR, max_length=3)
    schema.add_field("in_stock", DataType.INT8)
    schema.add_field("rating", DataType.DOUBLE)
    schema.add_field("rating_count", DataType.INT64)
    schema.add_field("popularity", DataType.DOUBLE)
    schema.add_field("updated_at", DataType.INT64)
    schema.add_field("group_id", DataType.VARCHAR, max_length=MAX_ID_BYTES)
    schema.add_field("language", DataType.VARCHAR, max_length=names)
    schema.add_field("payload", DataType.VARCHAR, max_length=_MAX_STRING_BYTES)
    if can.row_layout is RowLayout.NATIVE:
        schema.add_field("numbers", DataType.JSON)
        schema.add_field(
            "keys",
            DataType.ARRAY,
            element_type=DataType.VARCHAR,
            max_capacity=MAX_KEYS,
            max_length=keys.KEY_CHARS,
        )
    else:
        schema.add_field("keys", DataType.VARCHAR, max_length=_MAX_STRING_BYTES)
    if can.lexical:
        schema.add_field(
            "lexical",
            DataType.VARCHAR,
            max_length=_MAX_STRING_BYTES,
            enable_analyzer=True,
            analyzer_params={"tokenizer": can.tokenizer},
        )
        schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            Function(
                name="bm25",
                function_type=FunctionType.BM25,
                input_field_names=["lexical"],
                output_field_names=["sparse"],
            )
        )
    return schema


class IndexType(enum.StrEnum):
    """How a generation finds the vectors near another, by Milvus's names."""

    HNSW = "HNSW"
    FLAT = "FLAT"
    IVF_FLAT = "IVF_FLAT"


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """How the index of vectors is built. Of the parameters those of its type count."""

    type: IndexType
    hnsw_m: int
    hnsw_ef_construction: int
    ivf_nlist: int

    def parameters(self) -> dict[str, float]:
        """Those of its type, by Milvus's names."""
        match self.type:
            case IndexType.HNSW:
                return {"M": self.hnsw_m, "efConstruction": self.hnsw_ef_construction}
            case IndexType.IVF_FLAT:
                return {"nlist": self.ivf_nlist}
            case IndexType.FLAT:
                return {}


@dataclass(frozen=True, slots=True)
class Bm25Params:
    """How words are weighed."""

    k1: float
    b: float


def index_params(vectors: VectorIndex, bm25: Bm25Params, can: Capabilities) -> IndexParams:
    """The indexes of a generation."""
    params = IndexParams()
    params.add_index(
        "vector",
        index_type=str(vectors.type),
        metric_type="COSINE",
        params=_built_with(vectors.parameters(), can),
    )
    if can.lexical:
        params.add_index(
            "sparse",
            index_type="SPARSE_INVERTED_INDEX",
            metric_type="BM25",
            params=_built_with({"bm25_k1": bm25.k1, "bm25_b": bm25.b}, can),
        )
    for name in ("brand", "category", "group_id"):
        params.add_index(name, index_type=can.text_index)
    params.add_index("price", index_type=can.number_index)
    return params


def _built_with(params: dict[str, float], can: Capabilities) -> dict[str, Any]:
    return {"params": params} if can.nested_index_params else params


def category_prefix(path: Sequence[str]) -> str:
    """What `category` begins with for every item at or below `path`."""
    return "".join(part.translate(_CATEGORY_ESCAPES) + _SEPARATOR for part in path)


def category_path(stored: str) -> tuple[str, ...]:
    """The path that `category_prefix` spelled."""
    return tuple(
        _CATEGORY_ESCAPE.sub(lambda found: chr(int(found[1], 16)), part) for part in stored.split(_SEPARATOR)[:-1]
    )


def micros(at: datetime) -> int:
    """Microseconds since 1970 of `at`, which knows its time zone."""
    return (at - _EPOCH) // _MICROSECOND


def violations(row: Row, at: str = "item") -> Iterator[FieldViolation]:
    """What keeps a valid item from being stored, beyond the rules of `shared.items`."""
    if len(row.payload) > MAX_PAYLOAD_BYTES:
        yield FieldViolation(at, f"must be at most {MAX_PAYLOAD_BYTES:,} bytes in all, and has {len(row.payload):,}")
    if not np.any(row.vector):
        yield FieldViolation(f"{at}.vector", "must not be all zeros: it has no direction to compare")
    if len(row.item.language_code) > MAX_NAME_CHARS:
        yield FieldViolation(f"{at}.language_code", f"must be at most {MAX_NAME_CHARS} characters")
    if row.item.rating_count is not None and row.item.rating_count >= 2**63:
        yield FieldViolation(f"{at}.rating_count", "must be below 2^63")
    if row.item.price is not None and row.item.price.micros >= 2**63:
        yield FieldViolation(f"{at}.price", "must be below 2^63 millionths")
    for name, attribute in row.item.attributes.items():
        if len(_ordered(attribute)) > MAX_NUMBERS:
            yield FieldViolation(
                f"{at}.attributes[{name!r}].numbers", f"must have at most {MAX_NUMBERS} different numbers"
            )
    if len(item_keys(row.item)) > MAX_KEYS:
        yield FieldViolation(f"{at}.attributes", f"tags and attributes must hold at most {MAX_KEYS:,} values in all")


def to_store(row: Row, can: Capabilities) -> dict[str, Any]:
    """The row as the store takes it."""
    item = row.item
    stored: dict[str, Any] = {
        "id": item.id,
        "vector": row.vector,
        "brand": item.brand,
        "category": category_prefix(item.category_path),
        "price": item.price.micros if item.price is not None else _UNKNOWN,
        "currency": item.price.currency_code if item.price is not None else "",
        "in_stock": int(item.in_stock) if item.in_stock is not None else _UNKNOWN,
        "rating": _known(item.rating),
        "rating_count": item.rating_count if item.rating_count is not None else _UNKNOWN,
        "popularity": _known(item.popularity),
        "updated_at": micros(updated_at(item)),
        "group_id": item.group_id,
        "language": item.language_code,
        "payload": pybase64.b64encode_as_string(row.payload),
    }
    held, numbers = item_keys(item), _numbers(item.attributes)
    if can.row_layout is RowLayout.NATIVE:
        stored |= {"keys": held, "numbers": numbers}
    else:
        stored |= {"keys": f" {' '.join(held)} ", **numbers}
    if can.lexical:
        stored["lexical"] = lexical.index_text(_texts(item))
    return stored


def payload_of(stored: str) -> bytes:
    """The bytes of a row's payload."""
    # A search reads a hundred of them: pybase64 does in a third of the time what the standard library does.
    return pybase64.b64decode(stored, validate=True)


def updated_at(item: Item) -> datetime:
    """When the item last changed; whoever makes a row says "now" for an item that does not tell."""
    if item.updated_at is None:
        raise ValueError("a row's item must say when it was updated")
    return item.updated_at


def item_keys(item: Item) -> list[str]:
    """Every key of the item, each once."""
    held = [keys.tag(tag) for tag in item.tags]
    if item.tags:
        held.append(keys.has("tags"))
    held.extend(keys.has(name) for name in _OPTIONAL_TEXTS if getattr(item, name))
    for name, attribute in item.attributes.items():
        held.extend(keys.attribute(name, value) for value in attribute.text)
        held.extend(keys.number(name, position) for position in range(len(_ordered(attribute))))
        if attribute.text or attribute.numbers:
            held.append(keys.has(f"attributes.{name}"))
    return list(dict.fromkeys(held))


def _numbers(attributes: Mapping[str, Attribute]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, attribute in attributes.items():
        ordered = _ordered(attribute)
        found.update({keys.number(name, position): value for position, value in enumerate(ordered)})
        if ordered:
            found[keys.largest(name)] = ordered[-1]
    return found


def _ordered(attribute: Attribute) -> list[float]:
    return sorted({float(number) for number in attribute.numbers})


def _known(value: float | None) -> float:
    return float(value) if value is not None else float(_UNKNOWN)


def _texts(item: Item) -> Iterator[str]:
    """What an item is found by, the telling parts first."""
    yield item.title
    yield item.brand
    yield from item.category_path
    yield from item.tags
    for name, attribute in item.attributes.items():
        yield name
        yield from attribute.text
    yield item.description
