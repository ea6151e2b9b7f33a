"""Search by comparing every vector: what approximate search is measured by, and falls back on."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from services.vector_retrieval.capabilities import Capabilities
from services.vector_retrieval.fusion import Found
from services.vector_retrieval.generations import Generation
from services.vector_retrieval.scan import Scanner, Stored
from services.vector_retrieval.schema import Vectors


async def search(
    scanner: Scanner,
    generation: Generation,
    can: Capabilities,
    vectors: Vectors,
    *,
    expression: str,
    limit: int,
    columns: Sequence[str],
    level: str,
) -> list[list[Found]]:
    """The `limit` rows nearest to each of `vectors` by cosine among those that meet `expression`; of equally near
    ones, the smaller ids. Memory: a page of rows and `limit` ids a vector."""
    best = [_Best(limit) for _ in vectors]
    asked = _unit(vectors)
    async for page in scanner.pages(generation, can, expression, ["vector"], level):
        await asyncio.to_thread(_compare, asked, page, best)
    ids = sorted({item_id for one in best for item_id in one.ids})
    stored = await scanner.rows(generation, ids, columns, level)
    return [
        [
            Found(item_id, score, stored[item_id]["payload"], stored[item_id])
            for item_id, score in zip(one.ids, one.scores, strict=True)
            if item_id in stored
        ]
        for one in best
    ]


@dataclass(slots=True)
class _Best:
    """The nearest rows so far, nearest first."""

    limit: int
    ids: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def take(self, ids: Sequence[str], scores: Vectors) -> None:
        ranked = sorted(zip([*self.scores, *scores.tolist()], [*self.ids, *ids], strict=True), key=_nearest)
        del ranked[self.limit :]
        self.scores = [score for score, _ in ranked]
        self.ids = [item_id for _, item_id in ranked]


def _nearest(row: tuple[float, str]) -> tuple[float, str]:
    return -row[0], row[1]


def _compare(asked: Vectors, page: Sequence[Stored], best: Sequence[_Best]) -> None:
    ids = [str(row["id"]) for row in page]
    scores = asked @ _unit(np.array([row["vector"] for row in page], dtype=np.float32)).T
    for one, row in zip(best, scores, strict=True):
        one.take(ids, row)


def _unit(vectors: Vectors) -> Vectors:
    units: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units
