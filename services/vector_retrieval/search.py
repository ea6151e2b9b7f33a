"""Searching a generation: by vector, by words, or both side by side and fused."""

import asyncio
import enum
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.vector_retrieval import expressions, lexical
from services.vector_retrieval.capabilities import Capabilities
from services.vector_retrieval.filters import Filter
from services.vector_retrieval.fusion import Candidate, Found, Fusion, ReciprocalRank, by_vector, by_words, fuse
from services.vector_retrieval.generations import Generation
from services.vector_retrieval.lite import Gate
from services.vector_retrieval.milvus import Connection
from services.vector_retrieval.schema import Vectors
from services.vector_retrieval.settings import VectorRetrievalSettings
from shared.errors import FailedPreconditionError

LEXICAL_UNSUPPORTED = "LEXICAL_UNSUPPORTED"
"""`Answer.degraded`: the words were asked for and the store cannot rank by them."""


class Mode(enum.Enum):
    """How candidates are found. `BEST` is hybrid where the store can and both halves are given."""

    BEST = enum.auto()
    DENSE = enum.auto()
    LEXICAL = enum.auto()
    HYBRID = enum.auto()


class Consistency(enum.StrEnum):
    """Which writes a read must see; the values are Milvus's names."""

    BOUNDED = "Bounded"
    """All but those of the last moments (Milvus's default: 5 s at most); never waits."""
    STRONG = "Strong"
    """All; waits for the store's next time tick (about 0.2 s)."""
    SESSION = "Session"
    """Those that this process has acknowledged: strong for a while after a write of its own, else bounded. Not
    Milvus's own level of that name, which forgets about earlier writes when a delete comes (seen with 2.3.5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A batch of queries. Where both halves are given, they have the same length."""

    vectors: Vectors | None = None
    model_version: str = ""
    texts: Sequence[str] | None = None
    mode: Mode = Mode.BEST
    filter: Filter | None = None
    limit: int
    fusion: Fusion = field(default_factory=ReciprocalRank)
    exclude_ids: Sequence[str] = ()
    consistency: Consistency = Consistency.BOUNDED

    @property
    def size(self) -> int:
        """Queries in the batch."""
        return len(self.vectors) if self.vectors is not None else len(self.texts or ())

    @property
    def uses_vectors(self) -> bool:
        """Whether the vectors given take part."""
        return self.vectors is not None and self.mode is not Mode.LEXICAL


@dataclass(frozen=True, slots=True)
class Answer:
    """Candidates of each query, best first, and who answered."""

    candidates: list[list[Candidate]]
    generation: str = ""
    model_version: str = ""
    degraded: tuple[str, ...] = ()


class Searcher:
    """Searches generations of one store."""

    def __init__(self, connection: Connection, gate: Gate, settings: VectorRetrievalSettings) -> None:
        self._connection = connection
        self._gate = gate
        self._settings = settings

    async def search(self, query: Query, generation: Generation, can: Capabilities, level: str) -> Answer:
        """`level` is Milvus's consistency level.

        Raises `FailedPreconditionError` when words alone are asked of a generation that has none.
        """
        vectors = query.vectors if query.uses_vectors else None
        texts = query.texts if query.mode is not Mode.DENSE else None
        degraded: tuple[str, ...] = ()
        if texts is not None and not generation.lexical:
            if vectors is None:
                raise FailedPreconditionError(
                    "this index cannot be searched by words (BM25 needs Milvus 2.5 or Milvus Lite 3); give embeddings",
                    reason=LEXICAL_UNSUPPORTED,
                )
            texts, degraded = None, (LEXICAL_UNSUPPORTED,)
        expression = expressions.compile_filter(query.filter, query.exclude_ids, can.row_layout)
        both = vectors is not None and texts is not None
        depth = max(query.limit, self._settings.fusion_depth) if both else query.limit
        options = {"filter": expression, "limit": depth, "consistency_level": level}
        async with self._gate.reading():
            if vectors is not None and texts is not None:
                dense, words = await _side_by_side(
                    self._by_vector(vectors, generation, options), self._by_words(texts, generation, options)
                )
                candidates = [fuse(d, w, query.fusion, query.limit) for d, w in zip(dense, words, strict=True)]
            elif vectors is not None:
                candidates = [by_vector(found) for found in await self._by_vector(vectors, generation, options)]
            else:
                candidates = [by_words(found) for found in await self._by_words(texts or (), generation, options)]
        return Answer(candidates, generation.name, generation.model_version, degraded)

    async def _by_vector(self, vectors: Vectors, generation: Generation, options: dict[str, Any]) -> list[list[Found]]:
        ef = max(self._settings.hnsw_ef, options["limit"])
        return _found(
            await self._connection.read(
                "search",
                generation.collection,
                # As bytes: pymilvus packs them without looking at each number.
                data=[row.tobytes() for row in vectors],
                anns_field="vector",
                search_params={"metric_type": "COSINE", "params": {"ef": ef}},
                output_fields=["payload"],
                **options,
            )
        )

    async def _by_words(
        self, texts: Sequence[str], generation: Generation, options: dict[str, Any]
    ) -> list[list[Found]]:
        analysed = [lexical.query_text(text) for text in texts]
        # The store refuses an empty text; one without words finds nothing.
        asked = [text for text in analysed if text]
        if not asked:
            return [[] for _ in texts]
        found = iter(
            _found_by_words(
                await self._connection.read(
                    "search",
                    generation.collection,
                    data=asked,
                    anns_field="sparse",
                    search_params={"metric_type": "BM25"},
                    output_fields=["payload"],
                    **options,
                )
            )
        )
        return [next(found) if text else [] for text in analysed]


def _found(result: Any) -> list[list[Found]]:
    return [[Found(hit["id"], hit["distance"], hit["entity"]["payload"]) for hit in hits] for hits in result]


def _found_by_words(result: Any) -> list[list[Found]]:
    # Milvus Lite returns BM25 scores, which are never below zero, as negative distances.
    return [[Found(hit["id"], abs(hit["distance"]), hit["entity"]["payload"]) for hit in hits] for hits in result]


async def _side_by_side(
    first: Coroutine[Any, Any, list[list[Found]]], second: Coroutine[Any, Any, list[list[Found]]]
) -> tuple[list[list[Found]], list[list[Found]]]:
    """Both results; when one fails, the other is not left running."""
    tasks = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        one, other = await asyncio.gather(*tasks)
        return one, other
    finally:
        for task in tasks:
            task.cancel()
