"""Searching a generation: by vector, by words, or both side by side and fused."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from services.vector_retrieval import expressions
from services.vector_retrieval import facets as counting
from services.vector_retrieval.capabilities import Capabilities
from services.vector_retrieval.filters import Filter
from services.vector_retrieval.fusion import Candidate, Fusion, ReciprocalRank, by_vector, by_words, fuse
from services.vector_retrieval.generations import Generation
from services.vector_retrieval.halves import Ask, Halves, grouping_key, together
from services.vector_retrieval.schema import Vectors
from services.vector_retrieval.settings import VectorRetrievalSettings
from shared.errors import FailedPreconditionError

LEXICAL_UNSUPPORTED = "LEXICAL_UNSUPPORTED"
"""`Answer.degraded`: the words were asked for and the store cannot rank by them."""


PREVIOUS_GENERATION = "PREVIOUS_GENERATION"
"""`Answer.degraded`: the generation before the live one answered, whose model made the vectors."""

DEFAULT_FACET_DEPTH = 100


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
    offset: int = 0
    min_score: float | None = None
    exact: bool = False
    """Compare every vector, instead of those the index leads to."""
    one_per_group: bool = False
    facets: Sequence[counting.Facet] = ()
    facet_depth: int = DEFAULT_FACET_DEPTH
    """Candidates that facets count at least, as far as there are so many."""
    with_vectors: bool = False

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
    facets: list[list[counting.Counts]] = field(default_factory=list)
    """Of each query, the counts of each facet asked for."""
    vectors: list[Vectors] = field(default_factory=list)
    """Of each query, one row a candidate, where they were asked for."""


class Searcher:
    """Searches generations of one store."""

    def __init__(self, halves: Halves, settings: VectorRetrievalSettings) -> None:
        self._halves = halves
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
        ask = Ask(
            generation,
            can,
            expression=expressions.compile_filter(query.filter, query.exclude_ids, can.row_layout),
            depth=self._depth(query, hybrid=vectors is not None and texts is not None),
            columns=_columns(query),
            level=level,
            exact=query.exact,
            grouped=query.one_per_group,
        )
        if vectors is not None and texts is not None:
            dense, words = await together(self._halves.by_vector(vectors, ask), self._halves.by_words(texts, ask))
            candidates = [fuse(d, w, query.fusion, ask.depth) for d, w in zip(dense, words, strict=True)]
        elif vectors is not None:
            candidates = [by_vector(found) for found in await self._halves.by_vector(vectors, ask)]
        else:
            candidates = [by_words(found) for found in await self._halves.by_words(texts or (), ask)]
        kept = [_kept(found, query) for found in candidates]
        listed = [found[query.offset :][: query.limit] for found in kept]
        return Answer(
            listed,
            generation.name,
            generation.model_version,
            degraded,
            [_counted(found[: ask.depth], query.facets) for found in kept],
            [_vectors(found, generation.dimensions) for found in listed] if query.with_vectors else [],
        )

    def _depth(self, query: Query, *, hybrid: bool) -> int:
        depth = query.offset + query.limit
        if hybrid:
            depth = max(depth, self._settings.fusion_depth)
        return max(depth, query.facet_depth) if query.facets else depth


def _columns(query: Query) -> list[str]:
    wanted = ["payload", *(["group_id"] if query.one_per_group else ()), *(["vector"] if query.with_vectors else ())]
    for facet in query.facets:
        wanted.extend(counting.COLUMNS[facet.field])
    return list(dict.fromkeys(wanted))


def _kept(candidates: Sequence[Candidate], query: Query) -> list[Candidate]:
    """Those that score enough, and of each group the best one alone where that was asked."""
    least = query.min_score
    kept = [c for c in candidates if least is None or c.score >= least]
    if not query.one_per_group:
        return kept
    first: dict[tuple[str, str], Candidate] = {}
    for candidate in kept:
        first.setdefault(grouping_key(candidate.id, candidate.columns), candidate)
    return list(first.values())


def _vectors(candidates: Sequence[Candidate], dimensions: int) -> Vectors:
    return np.array([c.columns["vector"] for c in candidates], dtype=np.float32).reshape(-1, dimensions)


def _counted(candidates: Sequence[Candidate], wanted: Sequence[counting.Facet]) -> list[counting.Counts]:
    rows = [candidate.columns for candidate in candidates]
    return [counting.count(rows, facet) for facet in wanted]
