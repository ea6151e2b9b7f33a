"""Items by a filter alone, the most popular first: for when there is nothing to search by."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from services.vector_retrieval import expressions, schema
from services.vector_retrieval.capabilities import Capabilities
from services.vector_retrieval.filters import Filter
from services.vector_retrieval.generations import Generation
from services.vector_retrieval.scan import Scanner
from services.vector_retrieval.schema import Vectors

LOOKED_AT = 1_000
"""Items put in order at least. No store sorts by a column, and reading the popularity of every item takes time in
proportion to their number: of 5,000, 0.7 s on Milvus Lite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Browse:
    """What to browse."""

    filter: Filter | None = None
    limit: int
    exclude_ids: Sequence[str] = ()
    with_vectors: bool = False


@dataclass(frozen=True, slots=True)
class Browsed:
    """Items, and the generation they are of: none before the first write. `vectors` has one row an item."""

    payloads: list[bytes] = field(default_factory=list)
    vectors: Vectors | None = None
    generation: str = ""
    model_version: str = ""


async def most_popular(
    scanner: Scanner, generation: Generation, can: Capabilities, asked: Browse, level: str
) -> Browsed:
    """The most popular of those rows that meet the filter and are looked at; those whose popularity is not known come
    last, and of equals the smaller id first. `level` is Milvus's consistency level."""
    expression = expressions.compile_filter(asked.filter, asked.exclude_ids, can.row_layout)
    looked = await scanner.some(generation, expression, ["popularity"], level, max(asked.limit, LOOKED_AT))
    # What is not known is stored as -1, below every popularity there can be.
    looked.sort(key=lambda row: (-row["popularity"], row["id"]))
    ids = [str(row["id"]) for row in looked[: asked.limit]]
    found = await scanner.rows(generation, ids, ["payload", *(["vector"] if asked.with_vectors else ())], level)
    rows = [found[i] for i in ids if i in found]
    vectors = None
    if asked.with_vectors:
        vectors = np.array([row["vector"] for row in rows], dtype=np.float32).reshape(-1, generation.dimensions)
    return Browsed(
        [schema.payload_of(row["payload"]) for row in rows], vectors, generation.name, generation.model_version
    )
