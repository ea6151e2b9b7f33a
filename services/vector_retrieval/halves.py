"""The two halves of a search, by vector and by words, each as long as it was asked to be wherever the items exist.

An index that walks a graph (HNSW) can miss items that a selective filter leaves far apart, and one of lists (IVF_FLAT)
those in lists it does not look at. A half that comes back short is therefore counted after, and if there were more,
asked again with a wider walk and at last compared vector by vector, which then are few.

Where hits are one a group, a half goes on, past the groups it has found, until it has enough of them.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from pymilvus import AsyncMilvusClient

from services.vector_retrieval import exact, expressions, lexical
from services.vector_retrieval.calls import MANY_HITS, SearchCall, search_together
from services.vector_retrieval.capabilities import Capabilities
from services.vector_retrieval.fusion import Found
from services.vector_retrieval.generations import Generation
from services.vector_retrieval.joining import Joining
from services.vector_retrieval.lite import Gate
from services.vector_retrieval.milvus import Connection
from services.vector_retrieval.scan import Scanner
from services.vector_retrieval.schema import IndexType, Vectors
from services.vector_retrieval.settings import VectorRetrievalSettings

MAX_DEPTH = 2_000
"""Hits asked of the store at once."""
_WIDER = 8
_MAX_EF = 32_768
"""Milvus refuses more."""
_IVF_SHARE = 64
"""IVF_FLAT looks at √nlist / 64 lists for each candidate of a walk, which finds about as much at any nlist: recall@100
over 50,000 embeddings at a width of 256 is 0.992 with 128 lists (46 looked at) and 0.985 with 1,024 (128 looked at)."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Ask:
    """What both halves of a search share."""

    generation: Generation
    can: Capabilities
    expression: str
    depth: int
    """Hits wanted of each half: items, or groups where `grouped`."""
    columns: Sequence[str]
    """Read with each hit; `group_id` among them where `grouped`."""
    level: str
    exact: bool
    grouped: bool

    def exactly(self) -> "Ask":
        """The same, comparing every vector."""
        return replace(self, exact=True)


def grouping_key(item_id: str, columns: Mapping[str, Any]) -> tuple[str, str]:
    """Equal for items of one group, and for no others."""
    group = str(columns["group_id"])
    return (group, "") if group else ("", item_id)


class Halves:
    """Asks one store."""

    def __init__(self, connection: Connection, gate: Gate, scanner: Scanner, settings: VectorRetrievalSettings) -> None:
        self._connection = connection
        self._gate = gate
        self._scanner = scanner
        self._settings = settings
        self._joining: Joining[SearchCall, list[list[Found]]] = Joining(settings.searches_under_way, MANY_HITS)

    async def by_vector(self, vectors: Vectors, ask: Ask) -> list[list[Found]]:
        """The nearest to each of `vectors`, nearest first."""

        async def find(positions: Sequence[int], ask: Ask) -> list[list[Found]]:
            chosen = vectors[np.array(positions)]
            return await (self._exactly(chosen, ask) if ask.exact else self._completely(chosen, ask))

        return await _spread(find, len(vectors), ask)

    async def by_words(self, texts: Sequence[str], ask: Ask) -> list[list[Found]]:
        """The best by BM25 for each of `texts`, best first."""
        analysed = [lexical.query_text(text) for text in texts]
        # The store refuses an empty text; one without words finds nothing.
        asked = [text for text in analysed if text]
        if not asked:
            return [[] for _ in texts]

        async def find(positions: Sequence[int], ask: Ask) -> list[list[Found]]:
            return await self._search(ask, "sparse", [asked[p] for p in positions], {"metric_type": "BM25"})

        found = iter(await _spread(find, len(asked), ask))
        # Milvus Lite returns BM25 scores, which are never below zero, as negative distances.
        return [[hit._replace(score=abs(hit.score)) for hit in next(found)] if text else [] for text in analysed]

    async def _completely(self, vectors: Vectors, ask: Ask) -> list[list[Found]]:
        """By the index, and by other means for those of `vectors` that the index falls short on."""
        ef = max(self._settings.hnsw_ef, ask.depth)
        if ask.expression:
            ef = min(ask.can.filtered_walk * ef, _MAX_EF)
        found = await self._nearest(vectors, ask, ef)
        short = [i for i, hits in enumerate(found) if len(hits) < ask.depth]
        if not short or ask.generation.index_type is IndexType.FLAT:
            return found
        there = min(ask.depth, await self._scanner.count(ask.generation, ask.expression, ask.level))
        for attempt in ("wider", "exact"):
            short = [i for i in short if len(found[i]) < there]
            if not short:
                break
            chosen = vectors[np.array(short)]
            again = await (
                self._nearest(chosen, ask, min(_WIDER * ef, _MAX_EF))
                if attempt == "wider"
                else self._exactly(chosen, ask)
            )
            for i, hits in zip(short, again, strict=True):
                found[i] = hits
        return found

    async def _exactly(self, vectors: Vectors, ask: Ask) -> list[list[Found]]:
        return await exact.search(
            self._scanner,
            ask.generation,
            ask.can,
            vectors,
            expression=ask.expression,
            limit=ask.depth,
            columns=ask.columns,
            level=ask.level,
        )

    async def _nearest(self, vectors: Vectors, ask: Ask, ef: int) -> list[list[Found]]:
        parameters = {"metric_type": "COSINE", "params": _how_far(ask.generation, ef)}
        return await self._search(ask, "vector", [row.tobytes() for row in vectors], parameters)

    async def _search(
        self, ask: Ask, field: str, queries: Sequence[bytes | str], parameters: dict[str, Any]
    ) -> list[list[Found]]:
        call = SearchCall(
            collection=ask.generation.collection,
            field=field,
            queries=queries,
            parameters=parameters,
            limit=ask.depth,
            expression=ask.expression,
            columns=ask.columns,
            level=ask.level,
        )
        async with self._gate.reading():
            return await self._connection.ask("search", partial(self._joined, call))

    async def _joined(self, call: SearchCall, client: AsyncMilvusClient) -> list[list[Found]]:
        hits = len(call.queries) * call.limit
        return await self._joining.ask(call.kind, call, hits, partial(search_together, client))


def _how_far(generation: Generation, ef: int) -> dict[str, int]:
    """What the index takes for a walk as wide as `ef`."""
    nlist = generation.ivf_nlist
    match generation.index_type:
        case IndexType.HNSW:
            return {"ef": ef}
        case IndexType.IVF_FLAT:
            return {"nprobe": min(math.ceil(ef * math.sqrt(nlist) / _IVF_SHARE), nlist)}
        case IndexType.FLAT:
            return {}


_Find = Callable[[Sequence[int], Ask], Awaitable[list[list[Found]]]]


async def _spread(find: _Find, size: int, ask: Ask) -> list[list[Found]]:
    """What `find` finds for each of `size` queries; where hits are one a group, hits of `ask.depth` groups at least,
    as far as there are so many."""
    if not ask.grouped:
        return await find(range(size), ask)
    first = replace(ask, depth=min(2 * ask.depth, MAX_DEPTH))
    found = await find(range(size), first)
    await together(*(_more_groups(find, position, hits, ask, first.depth) for position, hits in enumerate(found)))
    return found


async def _more_groups(find: _Find, position: int, hits: list[Found], ask: Ask, depth: int) -> None:
    """Adds to `hits`, the answer to a search to `depth`, what comes after the groups in it."""
    more = hits
    while len(more) == depth:
        known = {grouping_key(hit.id, hit.columns) for hit in hits}
        if len(known) >= ask.depth:
            return
        groups = sorted(group for group, _ in known if group)
        alone = sorted(item_id for group, item_id in known if not group)
        depth = min(2 * depth, MAX_DEPTH)
        beyond = expressions.both(
            ask.expression,
            expressions.outside_groups(groups) if groups else "",
            expressions.without(alone) if alone else "",
        )
        (more,) = await find([position], replace(ask, expression=beyond, depth=depth))
        hits.extend(more)


async def together(*work: Coroutine[Any, Any, Result]) -> list[Result]:
    """All results; when one fails, the others are not left running."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
