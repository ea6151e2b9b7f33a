"""What the gateway asks of the other services, in its own words; `clients.py` says it over gRPC.

Items, filters and vectors pass through unread: on the way from the index to the caller nobody converts them.
`timeout_s` is how long a call may take, in seconds. Every method raises `shared.errors.AisleError`s: `UnavailableError`
when the service does not answer, `OverloadedError` when it refuses, `DeadlineError` when the time was too short.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, Protocol

ItemPayload = object
"""An item as it travels. Opaque here: only the adapters and the servicers know its type."""
FilterPayload = object
"""A filter as it travels; opaque as an item is."""

LEXICAL_UNSUPPORTED = "LEXICAL_UNSUPPORTED"
"""What the index says when words were asked for and its store cannot rank by them."""
PREVIOUS_GENERATION = "PREVIOUS_GENERATION"
"""What the index says when the generation before the live one answered, because the vector was of its model."""


class Priority(Enum):
    """Who waits for a model: a shopper, or a job."""

    INTERACTIVE = 1
    BULK = 2


class Mode(Enum):
    """How candidates are found: by vector, by words, or by both."""

    DENSE = 1
    LEXICAL = 2
    HYBRID = 3


@dataclass(frozen=True, slots=True)
class Vectors:
    """`rows` vectors packed one after another. `dtype` is the wire's number for a component's type."""

    data: bytes
    rows: int
    dimensions: int
    dtype: int
    model_version: str

    def select(self, rows: Sequence[int]) -> "Vectors":
        """The vectors at `rows`, in that order."""
        width = len(self.data) // self.rows
        return replace(self, data=b"".join(self.data[r * width : (r + 1) * width] for r in rows), rows=len(rows))


class RowError(NamedTuple):
    """Why one row failed. `row` counts from 0, `field` is a path inside the row, `reason` is for machines."""

    row: int
    item_id: str
    field: str
    reason: str
    message: str


class Candidate(NamedTuple):
    """One hit of the index. A score or rank is `None` where that half of the search did not find the item."""

    item_id: str
    item: ItemPayload
    score: float
    dense_score: float | None = None
    dense_rank: int | None = None
    lexical_score: float | None = None
    lexical_rank: int | None = None
    group_id: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """The hits of one search, best first, and what answered it. `degraded` names what the store could not do."""

    candidates: Sequence[Candidate]
    generation: str
    model_version: str
    degraded: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """An item in the index, with its vector where that was asked for."""

    item: ItemPayload
    group_id: str = ""
    vector: Vectors | None = None


@dataclass(frozen=True, slots=True)
class Reranked:
    """One score an item, `None` for the unscored. `kind` is the bundle's (`late-interaction`), empty if not known."""

    scores: Sequence[float | None]
    model_version: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class EncodedItems:
    """One vector an item; rows in `errors` have none that means anything."""

    vectors: Vectors
    errors: Sequence[RowError] = ()


class QueryEncoderPort(Protocol):
    """Turns a query into a vector."""

    async def encode(self, text: str, *, timeout_s: float) -> Vectors:
        """One row. Raises `InvalidArgumentError` naming `query` for a text the model cannot read."""


class ItemEncoderPort(Protocol):
    """Turns items into vectors."""

    async def encode(self, items: Sequence[ItemPayload], priority: Priority, *, timeout_s: float) -> EncodedItems:
        """At most 256 items, one row each."""


class RetrievalPort(Protocol):
    """The index."""

    async def search(
        self,
        *,
        vector: Vectors | None,
        text: str | None,
        mode: Mode,
        filter_: FilterPayload | None,
        limit: int,
        exclude: Sequence[str] = (),
        timeout_s: float,
    ) -> Found:
        """Raises `InvalidArgumentError` below `filter` for a bad filter, `VersionMismatchError` for a vector of
        another model than the index's, `FailedPreconditionError` where nothing is indexed or the mode cannot be."""

    async def get(self, item_id: str, *, with_vector: bool, timeout_s: float) -> Stored | None:
        """`None` when the item is not there."""

    async def upsert(self, items: Sequence[ItemPayload], vectors: Vectors, *, timeout_s: float) -> Sequence[RowError]:
        """The rows refused; all others are durable. Idempotent. Raises `VersionMismatchError` as `search` does."""

    async def delete(self, ids: Sequence[str], *, timeout_s: float) -> int:
        """How many of the ids were there."""


class RerankerPort(Protocol):
    """Reads a query and items together."""

    async def rerank(self, query: str, items: Sequence[ItemPayload], *, timeout_s: float) -> Reranked:
        """One score an item, in the order given; when time runs short the first are scored first."""
