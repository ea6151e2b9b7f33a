"""Where the candidates of a recommendation come from: the index's neighbours, what others took with these items, and
what is popular. Three sources, one pool."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from services.gateway.ports import (
    Candidate,
    FilterPayload,
    Found,
    Mode,
    RetrievalPort,
    ScoredItem,
    UserEventsPort,
    Vectors,
)
from services.gateway.validation import MAX_CANDIDATES
from services.gateway.vectors import Matrix, cosines, matrix
from shared.errors import AisleError, InvalidArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What recommendations start from: one vector, a text, items; any of them may be missing. Items of `exclude`, and
    those of a group in `groups`, are no answer."""

    vector: Vectors | None = None
    text: str | None = None
    items: Sequence[ScoredItem] = ()
    exclude: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to start from."""
        return self.vector is None and self.text is None and not self.items


@dataclass(frozen=True, slots=True)
class Pool:
    """Candidates, each once, with their unit vectors (len(candidates), dimensions). `related` and `popular` are scores
    by item id; `missing` says for people why they are not there."""

    candidates: Sequence[Candidate]
    rows: Matrix
    generation: str
    model_version: str
    related: Mapping[str, float] = field(default_factory=dict)
    popular: Mapping[str, float] = field(default_factory=dict)
    degraded: Sequence[str] = ()
    missing: str = ""

    def likeness(self, vector: Vectors | None) -> list[float]:
        """Each candidate's cosine similarity to `vector`; empty where they cannot be compared."""
        if vector is None or not self.candidates or self.of_another_model(vector):
            return []
        return cosines(self.rows, vector)

    def of_another_model(self, vector: Vectors | None) -> bool:
        """Whether there are candidates and `vector` cannot be compared with them."""
        return vector is not None and bool(self.candidates) and vector.model_version != self.model_version

    def scores(self, by_id: Mapping[str, float]) -> list[float]:
        """Each candidate's entry in `by_id`; empty where none has one."""
        scores = [by_id.get(candidate.item_id, 0.0) for candidate in self.candidates]
        return scores if any(scores) else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """`popular_count` popular items of the last `popular_window_s` seconds are always candidates."""

    retrieval: RetrievalPort
    events: UserEventsPort
    popular_count: int
    popular_window_s: float

    async def gather(self, seed: Seed, filter_: FilterPayload | None, limit: int, *, timeout_s: float) -> Pool:
        """Up to `limit` candidates of each source. The log is one that can be missed, the index is not."""
        near, (related, popular, missing, taken) = await asyncio.gather(
            self._near(seed, filter_, limit, timeout_s), self._taken(seed, filter_, limit, timeout_s)
        )
        return _pool(near, taken, related, popular, missing, seed.exclude)

    async def browse(
        self, filter_: FilterPayload | None, exclude: Collection[str], limit: int, timeout_s: float
    ) -> Pool:
        """Items by the catalogue's own popularity, which needs nothing but the index."""
        found = await self.retrieval.browse(
            filter_=filter_, limit=limit, exclude=list(exclude), with_vectors=True, timeout_s=timeout_s
        )
        return _pool(found, None, {}, {}, "", frozenset())

    async def _near(self, seed: Seed, filter_: FilterPayload | None, limit: int, timeout_s: float) -> Found | None:
        if seed.vector is None and seed.text is None:
            return None
        mode = Mode.DENSE if seed.text is None else Mode.HYBRID if seed.vector is not None else Mode.LEXICAL
        return await self.retrieval.search(
            vector=seed.vector,
            text=seed.text,
            mode=mode,
            filter_=filter_,
            limit=limit,
            exclude=list(seed.exclude),
            # A product of many variants would leave no place for others.
            outside_groups=seed.groups,
            with_vectors=True,
            timeout_s=timeout_s,
        )

    async def _taken(
        self, seed: Seed, filter_: FilterPayload | None, limit: int, timeout_s: float
    ) -> tuple[dict[str, float], dict[str, float], str, Found | None]:
        """What others take: scores by id, and the items of these that meet the filter."""
        try:
            related, popular = await asyncio.gather(
                self._related(seed, limit, timeout_s),
                self._popular(seed, timeout_s),
            )
        except InvalidArgumentError:
            raise
        except AisleError as error:
            return {}, {}, error.message, None
        scores = {item.item_id: item.score for item in related}
        popularity = {item.item_id: item.score for item in popular}
        ids = [item_id for item_id in (*scores, *popularity) if item_id not in seed.exclude]
        ids = list(dict.fromkeys(ids))[:MAX_CANDIDATES]
        if not ids:
            return scores, popularity, "", None
        found = await self.retrieval.browse(
            filter_=filter_, ids=ids, limit=len(ids), with_vectors=True, timeout_s=timeout_s
        )
        return scores, popularity, "", found

    async def _related(self, seed: Seed, limit: int, timeout_s: float) -> Sequence[ScoredItem]:
        if not seed.items:
            return ()
        return await self.events.related(seed.items, limit=_beyond(limit, seed), timeout_s=timeout_s)

    async def _popular(self, seed: Seed, timeout_s: float) -> Sequence[ScoredItem]:
        if not self.popular_count:
            return ()
        limit = _beyond(self.popular_count, seed)
        return await self.events.popular(window_s=self.popular_window_s, limit=limit, timeout_s=timeout_s)


def _beyond(count: int, seed: Seed) -> int:
    """How many to ask for, so that `count` are left without those that are excluded."""
    return min(count + len(seed.exclude), MAX_CANDIDATES)


def _pool(
    near: Found | None,
    taken: Found | None,
    related: Mapping[str, float],
    popular: Mapping[str, float],
    missing: str,
    exclude: frozenset[str],
) -> Pool:
    first = near or taken or Found((), "", "")
    # While a shop changes its model, the two may come from two generations, whose vectors do not compare.
    both = [found for found in (near, taken) if found is not None and found.model_version == first.model_version]
    seen = set(exclude)
    candidates: list[Candidate] = []
    rows: list[Matrix] = []
    for found in both:
        fresh = [at for at, candidate in enumerate(found.candidates) if candidate.item_id not in seen]
        if fresh and found.vectors is not None:
            candidates += [found.candidates[at] for at in fresh]
            rows.append(matrix(found.vectors)[fresh])
            seen.update(candidate.item_id for candidate in found.candidates)
    return Pool(
        candidates,
        np.concatenate(rows) if rows else np.zeros((0, 1), np.float32),
        first.generation,
        first.model_version,
        related,
        popular,
        first.degraded,
        missing,
    )
