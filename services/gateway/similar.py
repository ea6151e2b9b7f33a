"""Items like another: the neighbours of its stored vector. No model runs, so no model can be down.

A shopper who looks at one variant of a product knows its other variants, and one of another product's variants is
enough to show it: of each group the nearest item is kept, of the item's own group none.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from services.gateway import validation
from services.gateway.answers import Answer, ModelVersions, PageRequest, Run
from services.gateway.budgets import RemainingS, StageBudget
from services.gateway.paging import PageTokens
from services.gateway.ports import Candidate, Found, Mode, RetrievalPort, Stored
from services.gateway.ranking import unranked
from services.gateway.stages import Stages
from shared.errors import InternalError, NotFoundError


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarPolicy:
    """How similar items are found."""

    candidate_count: int
    lookup: StageBudget
    retrieve: StageBudget


class SimilarFinder:
    """Answers from the index alone. `clock` gives seconds for the timings."""

    def __init__(
        self,
        retrieval: RetrievalPort,
        tokens: PageTokens,
        policy: SimilarPolicy,
        *,
        remaining_s: RemainingS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._retrieval = retrieval
        self._tokens = tokens
        self._policy = policy
        self._remaining_s = remaining_s
        self._clock = clock

    async def similar(self, item_id: str, page: PageRequest) -> Answer:
        """One page of the items most like `item_id`, never itself; scores are cosine similarities.

        Raises `InvalidArgumentError` with every field at fault, `NotFoundError`, or what the index raises.
        """
        wanted = page.check(self._tokens, validation.id_problems(item_id, "item_id"))
        run = Run(stages=Stages(self._clock))
        with run.stages.stage("lookup"):
            timeout = self._policy.lookup.timeout_s(self._remaining_s())
            stored = await self._retrieval.get(item_id, with_vector=True, timeout_s=timeout)
        if stored is None:
            raise NotFoundError("item", item_id)
        if stored.vector is None:
            raise InternalError("vector_retrieval returned an item without its vector")
        with run.stages.stage("retrieve"):
            found = await wanted.retrieve(self._neighbours(item_id, stored, page), self._policy.candidate_count)
        run.note_generation(found.degraded)
        # Before one of each group is chosen: a nearer variant that came since the first page is not of its list.
        left = filter(wanted.may_hold, found.candidates)
        cut = wanted.cut(unranked(one_per_group(left, [stored.group_id])))
        return Answer(
            results=cut.results,
            next_page_token=cut.next_page_token,
            candidate_count=cut.candidate_count,
            first_position=cut.first_position,
            generation=found.generation,
            versions=ModelVersions(index=found.model_version),
            timings=run.stages.timings(),
            degraded=run.degraded,
        )

    def _neighbours(self, item_id: str, stored: Stored, page: PageRequest) -> Callable[[int], Awaitable[Found]]:
        async def search(limit: int) -> Found:
            return await self._retrieval.search(
                vector=stored.vector,
                text=None,
                mode=Mode.DENSE,
                filter_=page.filter_,
                limit=limit,
                exclude=(item_id,),
                # The nearest of all, and with enough of them the only ones found. One of each other group is chosen
                # here alone: the index would choose one that came since the first page.
                outside_groups=(stored.group_id,) if stored.group_id else (),
                timeout_s=self._policy.retrieve.timeout_s(self._remaining_s()),
            )

        return search


def one_per_group(candidates: Iterable[Candidate], own_groups: Iterable[str]) -> list[Candidate]:
    """The first candidate of every group but `own_groups`, and every candidate without a group, in their order."""
    seen = set(own_groups)
    kept = []
    for candidate in candidates:
        if candidate.group_id:
            if candidate.group_id in seen:
                continue
            seen.add(candidate.group_id)
        kept.append(candidate)
    return kept
