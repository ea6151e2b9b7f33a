"""What the gateway asks of the other services, in its own words; `clients.py` says it over gRPC.

Items, filters and vectors pass through unread: on the way from the index to the caller nobody converts them.
`timeout_s` is how long a call may take, in seconds. Every method raises `shared.errors.AisleError`s: `UnavailableError`
when the service does not answer, `OverloadedError` when it refuses, `DeadlineError` when the time was too short.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, Protocol

ItemPayload = object
"""An item as it travels. Opaque here: only the adapters and the servicers know its type."""
FilterPayload = object
"""A filter as it travels; opaque as an item is."""
TokensPayload = object
"""The vectors of a query's tokens as they travel from the encoder to the re-ranker; opaque too."""

LATE_INTERACTION = "late-interaction"
"""The kind of re-ranker that reads the vectors of a query's tokens."""

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


class EventType(Enum):
    """What a shopper did."""

    SEARCH = 1
    IMPRESSION = 2
    VIEW = 3
    CLICK = 4
    ADD_TO_CART = 5
    REMOVE_FROM_CART = 6
    PURCHASE = 7
    RETURN = 8


class UserModel(Enum):
    """How a history becomes a vector: the weighted mean of its items' vectors, or its words read as a text."""

    WEIGHTED_MEAN = 1
    TEXT = 2


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


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A query's vector, one row, and those of its tokens where they were asked for and the encoder has them."""

    vector: Vectors
    tokens: TokensPayload | None = None


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
    """The hits of one search, best first, and what answered it. `degraded` names what the store could not do.

    `vectors` has one row a candidate where it was asked for and there are candidates.
    """

    candidates: Sequence[Candidate]
    generation: str
    model_version: str
    degraded: Sequence[str] = ()
    vectors: Vectors | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """An item in the index, with its vector where that was asked for."""

    item: ItemPayload
    group_id: str = ""
    vector: Vectors | None = None
    item_id: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class StoredItems:
    """Those of some items that are in the index. `vectors` has one row an item where it was asked for and there are
    items; the items' own `vector` is empty."""

    items: Sequence[Stored]
    vectors: Vectors | None = None


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


class UserAction(NamedTuple):
    """One thing a user did, as far as it says what they like: a SEARCH, VIEW, CLICK, ADD_TO_CART or PURCHASE.

    `age_s` is how long ago, in seconds; `text` a search's words or the item's title; `item_row` where the item's
    vector is, `None` for a search and for an item that has none.
    """

    type: EventType
    age_s: float
    text: str = ""
    item_row: int | None = None


@dataclass(frozen=True, slots=True)
class EncodedUsers:
    """One vector a user, made by `model`. Rows in `errors` have none that means anything: `NO_HISTORY` is the reason
    where a history says nothing."""

    vectors: Vectors
    model: UserModel
    errors: Sequence[RowError] = ()


class PastEvent(NamedTuple):
    """Something a user did. `occurred_at_s` is in seconds since 1970 (UTC); empty texts where the type has none."""

    type: EventType
    occurred_at_s: float
    item_id: str = ""
    query: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """A user's latest events, the newest first. `version` changes with every event; 0 for a user with none.

    `unchanged` says that the version the caller knows is still the user's; then there are no events here.
    """

    events: Sequence[PastEvent]
    version: int
    unchanged: bool = False


class ScoredItem(NamedTuple):
    """An item with a number: larger is better, comparable within one answer."""

    item_id: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Impression:
    """A page that was shown: an event of type IMPRESSION, as `aisle.events.v1.Event` has it. `id` is unique for ever:
    one that is sent again is stored once."""

    id: str
    user_id: str
    item_ids: Sequence[str]
    first_position: int
    attribution_token: str
    sampled_one_in: int


class QueryEncoderPort(Protocol):
    """Turns a query, or what users did, into vectors."""

    async def encode(self, text: str, *, with_tokens: bool = False, timeout_s: float) -> EncodedText:
        """Raises `InvalidArgumentError` naming `query` for a text the model cannot read."""

    async def encode_users(
        self,
        histories: Sequence[Sequence[UserAction]],
        item_vectors: Vectors | None,
        model: UserModel | None = None,
        *,
        timeout_s: float,
    ) -> EncodedUsers:
        """One row a history: 1 to 64 histories of at most 200 actions, the newest first. `item_vectors` is where
        `item_row`s count; without a model, the encoder's default. Raises `VersionMismatchError` for item vectors of
        another model than the encoder's."""


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
        outside_groups: Collection[str] = (),
        with_vectors: bool = False,
        timeout_s: float,
    ) -> Found:
        """Items of `outside_groups` take no place among the candidates, but where `filter_` leaves no room to say so.

        Raises `InvalidArgumentError` below `filter` for a bad filter, `VersionMismatchError` for a vector of
        another model than the index's, `FailedPreconditionError` where nothing is indexed or the mode cannot be."""

    async def browse(
        self,
        *,
        filter_: FilterPayload | None,
        ids: Sequence[str] = (),
        limit: int,
        exclude: Sequence[str] = (),
        with_vectors: bool = False,
        timeout_s: float,
    ) -> Found:
        """Items by a filter alone, 1 to 1,000, the most popular first; only those of `ids` where there are any. Their
        score is the catalogue's `popularity`, 0 for those without, who come last. Raises as `search` does."""

    async def get(self, item_id: str, *, with_vector: bool, timeout_s: float) -> Stored | None:
        """`None` when the item is not there."""

    async def get_many(self, ids: Sequence[str], *, with_vectors: bool, timeout_s: float) -> StoredItems:
        """The items that are there, in the order of `ids`, of which there are 1 to 1,000."""

    async def upsert(self, items: Sequence[ItemPayload], vectors: Vectors, *, timeout_s: float) -> Sequence[RowError]:
        """The rows refused; all others are durable. Idempotent. Raises `VersionMismatchError` as `search` does."""

    async def delete(self, ids: Sequence[str], *, timeout_s: float) -> int:
        """How many of the ids were there."""


class RerankerPort(Protocol):
    """Reads a query and items together."""

    @property
    def reads_tokens(self) -> bool:
        """Whether the vectors of a query's tokens spare it work; False until it has answered and said what it is."""

    async def rerank(
        self, query: str, items: Sequence[ItemPayload], tokens: TokensPayload | None = None, *, timeout_s: float
    ) -> Reranked:
        """One score an item, in the order given; when time runs short the first are scored first. `tokens` are the
        query's; one that has no use for them reads the query."""


class UserEventsPort(Protocol):
    """What shoppers did."""

    async def history(
        self,
        user_id: str,
        *,
        types: Sequence[EventType] = (),
        limit: int,
        known_version: int = 0,
        timeout_s: float,
    ) -> History:
        """At most `limit` (1 to 1,000) events, of `types` alone where there are any; a user nobody has seen has none.

        `known_version` is that of a history which the caller has. Raises `InvalidArgumentError` naming `user_id`.
        """

    async def related(self, items: Sequence[ScoredItem], *, limit: int, timeout_s: float) -> Sequence[ScoredItem]:
        """What goes with `items` (1 to 200, each score above 0), the best first; may hold some of them."""

    async def popular(self, *, window_s: float, limit: int, timeout_s: float) -> Sequence[ScoredItem]:
        """The items most was done with in the last `window_s` seconds, the most popular first; 1 to 1,000."""

    async def impressions(self, ids: Sequence[str], *, timeout_s: float) -> Sequence[int]:
        """How often each of `ids`, of which there are 1 to 1,000, was shown in the last 30 days."""

    async def write(self, events: Sequence[Impression], *, timeout_s: float) -> Sequence[RowError]:
        """The rows refused; all others are durable. Idempotent."""
