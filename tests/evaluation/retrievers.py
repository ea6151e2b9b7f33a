"""Ways of searching a catalogue, one query at a time: by words, by vector, by both, and re-ranked."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Protocol

from services.gateway.ports import Candidate
from services.gateway.ranking import rank
from services.trainer.evaluate.encode import Encoder, Vectors, highest
from services.vector_retrieval.fusion import Found, Linear, fuse
from shared.inference.scorer import Scorer
from tests.evaluation.lexical import Bm25, best

HALF = 200
"""Hits that each half gives to a fusion."""
RERANKED = 50
"""Candidates that a re-ranker sees."""


class Retriever(Protocol):
    """Something to measure."""

    name: str

    def search(self, query: str, depth: int) -> dict[str, float]:
        """The `depth` best items of the catalogue with their scores, best first."""

    def judge(self, query: str, item_ids: Sequence[str]) -> list[float] | None:
        """How well each item answers the query, comparable between queries; `None` where the scores are not."""


class Random:
    """The floor of what measures over judged items can show."""

    name = "random"

    def __init__(self, item_ids: Sequence[str]) -> None:
        self._ids = item_ids

    def search(self, query: str, depth: int) -> dict[str, float]:
        """See `Retriever`."""
        chosen = random.Random(query).sample(self._ids, min(depth, len(self._ids)))
        return {item: -float(at) for at, item in enumerate(chosen)}

    def judge(self, query: str, item_ids: Sequence[str]) -> list[float]:
        """See `Retriever`."""
        return [random.Random(f"{query} {item}").random() for item in item_ids]


class ByWords:
    """BM25."""

    def __init__(self, name: str, index: Bm25) -> None:
        self.name = name
        self._index = index

    def search(self, query: str, depth: int) -> dict[str, float]:
        """See `Retriever`."""
        return best(self._index.scores(query), depth)

    def judge(self, query: str, item_ids: Sequence[str]) -> list[float]:
        """See `Retriever`."""
        found = self._index.scores(query)
        return [found.get(item, 0.0) for item in item_ids]


class ByVector:
    """A bi-encoder, every item compared. `vectors`: (items, dimensions), of unit length."""

    def __init__(self, encoder: Encoder, item_ids: Sequence[str], vectors: Vectors) -> None:
        self.name = encoder.name
        self._encoder = encoder
        self._ids = item_ids
        self._vectors = vectors
        self._place = {item: at for at, item in enumerate(item_ids)}

    def search(self, query: str, depth: int) -> dict[str, float]:
        """See `Retriever`."""
        scores = self._vectors @ self._encoder.queries([query])[0]
        return {self._ids[at]: float(scores[at]) for at in highest(scores, depth)}

    def judge(self, query: str, item_ids: Sequence[str]) -> list[float]:
        """See `Retriever`."""
        rows = self._vectors[[self._place[item] for item in item_ids]]
        cosines: list[float] = (rows @ self._encoder.queries([query])[0]).tolist()
        return cosines


class Hybrid:
    """Both, fused as `vector_retrieval` fuses them for the gateway: `dense_weight` is the vectors' share, 0 to 1."""

    def __init__(self, dense: ByVector, lexical: ByWords, dense_weight: float) -> None:
        self.name = f"{dense.name} + BM25"
        self._dense, self._lexical = dense, lexical
        self._how = Linear(dense_weight, 1 - dense_weight)

    def search(self, query: str, depth: int) -> dict[str, float]:
        """See `Retriever`. Both together find at most twice `HALF` items."""
        halves = (half.search(query, HALF) for half in (self._dense, self._lexical))
        return dict(islice(fused(*halves, self._how).items(), depth))

    def judge(self, query: str, item_ids: Sequence[str]) -> None:
        """See `Retriever`: a fusion knows only what its halves found."""


def fused(dense: Mapping[str, float], lexical: Mapping[str, float], how: Linear) -> dict[str, float]:
    """Two halves of `HALF` hits as one list."""
    halves = ([Found(item, score, "") for item, score in half.items()] for half in (dense, lexical))
    return {candidate.id: candidate.score for candidate in fuse(*halves, how, HALF)}


class Reranked:
    """The first `RERANKED` of another's results in the order that the gateway gives them. `texts`: by item id."""

    def __init__(
        self,
        name: str,
        first: Retriever,
        scorer: Scorer,
        texts: Mapping[str, str],
        weight: float,
        runner: asyncio.Runner,
    ) -> None:
        self.name, self._scorer_name = f"{first.name} + {name}", name
        self._first, self._scorer, self._texts, self._weight, self._runner = first, scorer, texts, weight, runner

    def search(self, query: str, depth: int) -> dict[str, float]:
        """See `Retriever`."""
        return self.by_share(query, depth, [self._weight])[0]

    def by_share(self, query: str, depth: int, weights: Sequence[float]) -> list[dict[str, float]]:
        """What `search` gives for each of `weights`; the items are scored once."""
        found = self._first.search(query, depth)
        candidates = [Candidate(item, None, score, score, at) for at, (item, score) in enumerate(found.items(), 1)]
        scores = self._scores(query, list(found)[:RERANKED])
        return [
            {ranked.candidate.item_id: ranked.score for ranked in rank(candidates, scores, weight)}
            for weight in weights
        ]

    def weighing(self, weight: float) -> "Reranked":
        """The same with another weight."""
        name = f"{self._scorer_name}, share {weight:g}"
        return Reranked(name, self._first, self._scorer, self._texts, weight, self._runner)

    def judge(self, query: str, item_ids: Sequence[str]) -> list[float]:
        """See `Retriever`."""
        return self._scores(query, item_ids)

    def _scores(self, query: str, item_ids: Sequence[str]) -> list[float]:
        scored = self._runner.run(self._scorer.score(query, [self._texts[item] for item in item_ids]))
        if None in scored.values:
            raise RuntimeError(f"{self.name}: {scored.unscored} items were not scored")
        return [value for value in scored.values if value is not None]
