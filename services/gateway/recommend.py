"""Recommendations: a seed → candidates of three sources → one score → rules → page.

    HOME            the user's history
    SIMILAR_ITEMS   an item, and the user's history beside it
    BASKET          items together
    AFTER_SEARCH    a query, and the user's history beside it

no history              what is popular                         COLD_START
log fails               the index alone                         PERSONALIZATION_UNAVAILABLE
history not encoded     what others took, and what is popular   PERSONALIZATION_UNAVAILABLE
query encoder fails     found by words alone                    QUERY_ENCODER_UNAVAILABLE
retrieval fails         its error
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from services.gateway import queries
from services.gateway.answers import Answer, ModelVersions, Page, PageRequest, Reason, Run
from services.gateway.asks import Ask, Context
from services.gateway.blending import Parts, Weights, blend
from services.gateway.budgets import RemainingS, StageBudget
from services.gateway.diversity import explored, marginal_relevance
from services.gateway.paging import PageTokens
from services.gateway.ports import (
    FilterPayload,
    QueryEncoderPort,
    RetrievalPort,
    ScoredItem,
    UserEventsPort,
    Vectors,
)
from services.gateway.queries import NO_QUERY, EncodedQuery
from services.gateway.ranking import Ranked
from services.gateway.shoppers import BOUGHT, MAX_EXCLUDED, SEEN, Profile, Shoppers
from services.gateway.similar import one_per_group
from services.gateway.sources import Pool, Seed, Sources
from services.gateway.stages import Stages
from services.gateway.vectors import mean
from shared.errors import AisleError, InvalidArgumentError, NotFoundError, VersionMismatchError

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendPolicy:
    """How recommendations are made. `diversity` and `exploration_share` are 0 to 1."""

    candidate_count: int
    weights: Mapping[Context, Weights]
    diversity: float
    exploration_share: float
    history: StageBudget
    encode: StageBudget
    lookup: StageBudget
    retrieve: StageBudget


@dataclass(slots=True, kw_only=True)
class _Run(Run):
    """One request under way. `query` is what AFTER_SEARCH starts from."""

    ask: Ask
    filter_: FilterPayload | None
    page: Page
    query: EncodedQuery = NO_QUERY


@dataclass(slots=True, kw_only=True)
class Recommender:
    """Answers from the log, the index and the query encoder. `clock` gives seconds for the timings."""

    shoppers: Shoppers
    sources: Sources
    retrieval: RetrievalPort
    encoder: QueryEncoderPort
    events: UserEventsPort
    tokens: PageTokens
    policy: RecommendPolicy
    remaining_s: RemainingS
    clock: Callable[[], float] = time.perf_counter

    async def recommend(self, ask: Ask, request: PageRequest) -> Answer:
        """One page of what to show.

        Raises `InvalidArgumentError` with every field at fault, `NotFoundError` for the item of SIMILAR_ITEMS, or what
        the index raises.
        """
        page = request.check(self.tokens, ask.problems())
        run = _Run(ask=ask, filter_=request.filter_, page=page, stages=Stages(self.clock))
        (profile, avoided), seed = await asyncio.gather(self._shopper(run), self._seed(run))
        if profile is not None:
            seed = _with_history(ask.context, seed, profile)
        seed = _without(seed, avoided, profile)
        seed, pool = await self._comparable(run, seed, profile)
        ranked = self._score(run, seed, profile, pool)
        if not ranked:
            run.leave_out(Reason.COLD_START, "nothing is known to start from: what is popular")
            pool = await self._popular(run, seed, pool)
            ranked = _by_popularity(pool)
        cut = page.cut(await self._arrange(run, pool, ranked, seed.groups))
        return Answer(
            results=cut.results,
            next_page_token=cut.next_page_token,
            candidate_count=cut.candidate_count,
            first_position=cut.first_position,
            generation=pool.generation,
            versions=ModelVersions(_encoder_version(ask.context, seed), pool.model_version),
            timings=run.stages.timings(),
            degraded=run.degraded,
        )

    async def _shopper(self, run: _Run) -> tuple[Profile | None, list[str]]:
        """Who asks, and what they are not to be shown again."""
        ask = run.ask
        if not ask.user_id:
            return None, []
        avoid = (*(SEEN if ask.exclude_seen else ()), *(BOUGHT if ask.exclude_purchased else ()))
        try:
            with run.stages.stage("history"):
                left_s = self.policy.history.countdown(self.remaining_s())
                profile, avoided = await asyncio.gather(
                    self.shoppers.profile(ask.user_id, ask.user_model, left_s),
                    self.shoppers.did(ask.user_id, avoid, left_s()) if avoid else _nothing(),
                )
        except InvalidArgumentError:
            raise
        except AisleError as error:
            _log.debug("shopper not read", why=error.message)
            run.leave_out(Reason.PERSONALIZATION_UNAVAILABLE, f"as for someone not known: {error.message}")
            return None, []
        if profile is not None and profile.unread:
            run.leave_out(Reason.PERSONALIZATION_UNAVAILABLE, f"without the user's vector: {profile.unread}")
        return profile, avoided

    async def _seed(self, run: _Run) -> Seed:
        match run.ask.context:
            case Context.HOME:
                return Seed()
            case Context.AFTER_SEARCH:
                return await self._query_seed(run)
            case _:
                return await self._item_seed(run)

    async def _query_seed(self, run: _Run) -> Seed:
        text = run.ask.query.strip()
        run.query = await queries.encode(self.encoder, text, run, self.policy.encode, self.remaining_s)
        return Seed(vector=run.query.vector, text=text)

    async def _item_seed(self, run: _Run) -> Seed:
        ids = list(dict.fromkeys(run.ask.item_ids))
        with run.stages.stage("lookup"):
            timeout = self.policy.lookup.timeout_s(self.remaining_s())
            stored = await self.retrieval.get_many(ids, with_vectors=True, timeout_s=timeout)
        if not stored.items and run.ask.context is Context.SIMILAR_ITEMS:
            raise NotFoundError("item", ids[0])
        vector: Vectors | None = mean(stored.vectors) if stored.vectors is not None else None
        return Seed(
            vector=vector,
            items=[ScoredItem(item_id, 1.0) for item_id in ids],
            exclude=frozenset(ids),
            groups=frozenset(item.group_id for item in stored.items if item.group_id),
        )

    async def _comparable(self, run: _Run, seed: Seed, profile: Profile | None) -> tuple[Seed, Pool]:
        """What `seed` leads to; without the user's vector where that is kept from a model the index no longer has."""
        try:
            pool = await self._gather(run, seed)
            if profile is None or not pool.of_another_model(profile.vector):
                return seed, pool
        except VersionMismatchError:
            if run.ask.context is not Context.HOME:
                raise
            seed = replace(seed, vector=None)
            pool = await self._gather(run, seed)
        self.shoppers.forget(run.ask.user_id)
        why = "without the user's vector, which is another model's than the index's: the next request reads it anew"
        run.leave_out(Reason.PERSONALIZATION_UNAVAILABLE, why)
        return seed, pool

    async def _gather(self, run: _Run, seed: Seed) -> Pool:
        async def gather(limit: int) -> Pool:
            timeout = self.policy.retrieve.timeout_s(self.remaining_s())
            return await self.sources.gather(seed, run.filter_, limit, timeout_s=timeout)

        with run.stages.stage("retrieve"), run.query.searched():
            pool = await run.page.retrieve(gather, self.policy.candidate_count)
        run.query.note(run, pool.degraded)
        if pool.missing:
            run.leave_out(Reason.PERSONALIZATION_UNAVAILABLE, f"without what others took: {pool.missing}")
        return pool

    async def _popular(self, run: _Run, seed: Seed, pool: Pool) -> Pool:
        """`pool`'s popular items, or, where the log knows of none that meet the filter, the catalogue's."""
        if pool.candidates:
            return pool
        with run.stages.stage("browse"):
            timeout = self.policy.retrieve.timeout_s(self.remaining_s())
            return await self.sources.browse(run.filter_, seed.exclude, self.policy.candidate_count, timeout)

    def _score(self, run: _Run, seed: Seed, profile: Profile | None, pool: Pool) -> list[Ranked]:
        """Best first; empty where there is nothing to score by."""
        if seed.empty or not pool.candidates:
            return []
        at_home = run.ask.context is Context.HOME
        # A search's own score says more than the vector's half of it.
        likeness = pool.likeness(seed.vector) if seed.text is None else _search_scores(pool)
        parts = Parts(
            likeness=likeness,
            related=pool.scores(pool.related),
            popularity=pool.scores(pool.popular),
            user=[] if at_home or profile is None else pool.likeness(profile.vector),
        )
        if not any(parts.likeness) and not parts.related:
            return []
        ranked = blend(pool.candidates, parts, self.policy.weights[run.ask.context], from_user=at_home)
        return sorted(ranked, key=lambda one: -one.score)

    async def _arrange(
        self, run: _Run, pool: Pool, ranked: Sequence[Ranked], groups: Collection[str]
    ) -> Sequence[Ranked]:
        """The rules: one of each group, none of another list, differing from each other, and some that are new."""
        chosen = {
            candidate.item_id
            for candidate in one_per_group((r.candidate for r in ranked if run.page.may_hold(r.candidate)), groups)
        }
        kept = [r for r in ranked if r.candidate.item_id in chosen]
        diversity = self.policy.diversity if run.ask.diversity is None else run.ask.diversity
        row_of = {candidate.item_id: row for row, candidate in enumerate(pool.candidates)}
        rows = pool.rows[[row_of[r.candidate.item_id] for r in kept]]
        kept = [kept[at] for at in marginal_relevance([r.score for r in kept], rows, diversity, run.page.size)]
        if self.policy.exploration_share <= 0 or not kept:
            return kept
        return await self._explore(run, kept)

    async def _explore(self, run: _Run, kept: Sequence[Ranked]) -> Sequence[Ranked]:
        try:
            with run.stages.stage("stats"):
                ids = [r.candidate.item_id for r in kept[:MAX_EXCLUDED]]
                timeout = self.policy.history.timeout_s(self.remaining_s())
                shown = await self.events.impressions(ids, timeout_s=timeout)
        except AisleError as error:
            _log.debug("not explored", why=error.message)
            return kept
        new = [not times for times in shown] + [False] * (len(kept) - len(shown))
        order = explored(new, self.policy.exploration_share)
        return [kept[at]._replace(exploration=new[at] and place < at) for place, at in enumerate(order)]


def _encoder_version(context: Context, seed: Seed) -> str:
    """Of the model that made the seed's vector, where one did: an item's is the index's own."""
    if seed.vector is None or context not in {Context.HOME, Context.AFTER_SEARCH}:
        return ""
    return seed.vector.model_version


def _with_history(context: Context, seed: Seed, profile: Profile) -> Seed:
    """At home the history is all there is; after a search, what others took with its items is asked for too."""
    match context:
        case Context.HOME:
            return replace(seed, vector=profile.vector, items=profile.items)
        case Context.AFTER_SEARCH:
            return replace(seed, items=profile.items)
        case _:
            return seed


def _by_popularity(pool: Pool) -> list[Ranked]:
    popularity = pool.scores(pool.popular) or [candidate.score for candidate in pool.candidates]
    ranked = blend(pool.candidates, Parts(popularity=popularity), Weights(popularity=1.0), from_user=False)
    return sorted(ranked, key=lambda one: -one.score)


def _search_scores(pool: Pool) -> list[float]:
    """What the search gave; 0 for candidates of other sources, which have no rank in it."""
    return [
        candidate.score if candidate.dense_rank is not None or candidate.lexical_rank is not None else 0.0
        for candidate in pool.candidates
    ]


def _without(seed: Seed, avoided: Sequence[str], profile: Profile | None) -> Seed:
    """`seed` that leads to none of `avoided`, as many of these as the index leaves out, nor to a variant of one."""
    groups = {profile.groups[item_id] for item_id in avoided if item_id in profile.groups} if profile else set()
    return replace(
        seed,
        exclude=seed.exclude | frozenset(avoided[: MAX_EXCLUDED - len(seed.exclude)]),
        groups=seed.groups | groups,
    )


async def _nothing() -> list[str]:
    return []
