"""Search: encode → retrieve → rerank → personalise → page, with every soft stage allowed to fail.

query encoder fails     found by words alone             QUERY_ENCODER_UNAVAILABLE
… and no words either   UnavailableError
store has no words      found by vector alone            LEXICAL_UNSUPPORTED
query's model is old    found in the generation before   PREVIOUS_GENERATION
retrieval fails         its error, a hang as UnavailableError
re-ranker fails         the index's order                RERANKER_UNAVAILABLE
… scores some only      the others below, in its order   RERANKER_PARTIAL
history not read        unpersonalised                   PERSONALIZATION_UNAVAILABLE
versions do not match   VersionMismatchError: an index nobody can ask by vector is for people to mend
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from services.gateway import queries, validation
from services.gateway.answers import Answer, ModelVersions, Page, PageRequest, Reason, Run
from services.gateway.asks import share_problems, user_problems
from services.gateway.budgets import RemainingS, StageBudget
from services.gateway.paging import PageTokens
from services.gateway.ports import (
    FilterPayload,
    Found,
    QueryEncoderPort,
    RerankerPort,
    RetrievalPort,
    Vectors,
)
from services.gateway.queries import EncodedQuery
from services.gateway.ranking import Ranked, personalised, rank, unranked
from services.gateway.shoppers import Shoppers
from services.gateway.stages import Stages
from services.gateway.vectors import cosines, matrix
from shared.errors import (
    AisleError,
    FieldViolation,
    InvalidArgumentError,
)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPolicy:
    """How searches are run. `rerank_weights` by kind of model, 0 to 1, with `default_rerank_weight` for other kinds."""

    candidate_count: int
    rerank_count: int
    rerank_weights: Mapping[str, float]
    default_rerank_weight: float
    encode: StageBudget
    retrieve: StageBudget
    rerank: StageBudget
    history: StageBudget
    personalization_weight: float


@dataclass(frozen=True, slots=True)
class Shopper:
    """Who searches: an id, empty for one who is not known, and how much of a say their history has, 0 to 1; the
    policy's weight for `None`."""

    user_id: str = ""
    weight: float | None = None

    def problems(self) -> list[FieldViolation]:
        """What is wrong with it."""
        return user_problems(self.user_id) + share_problems(self.weight, "personalization_weight")


ANYONE = Shopper()


@dataclass(slots=True, kw_only=True)
class _Run(Run):
    """One search under way."""

    text: str
    shopper: Shopper
    filter_: FilterPayload | None
    page: Page


class Searcher:
    """Answers searches from three services. `clock` gives seconds for the timings."""

    def __init__(
        self,
        encoder: QueryEncoderPort,
        retrieval: RetrievalPort,
        reranker: RerankerPort,
        shoppers: Shoppers,
        tokens: PageTokens,
        policy: SearchPolicy,
        *,
        remaining_s: RemainingS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._encoder = encoder
        self._retrieval = retrieval
        self._reranker = reranker
        self._shoppers = shoppers
        self._tokens = tokens
        self._policy = policy
        self._remaining_s = remaining_s
        self._clock = clock

    async def search(self, query: str, page: PageRequest, shopper: Shopper = ANYONE) -> Answer:
        """One page of the items that answer `query`, ordered for `shopper`.

        Raises `InvalidArgumentError` with every field at fault, `VersionMismatchError`, or what the index raises.
        """
        text = query.strip()
        wanted = page.check(self._tokens, validation.query_problems(text) + shopper.problems())
        run = _Run(text=text, shopper=shopper, filter_=page.filter_, page=wanted, stages=Stages(self._clock))
        encoded, user = await asyncio.gather(self._encode(run), self._user(run))
        found = await self._retrieve(run, encoded, with_vectors=user is not None)
        ranked, reranker = await self._rerank(run, encoded, found)
        if user is not None:
            ranked = self._personalise(run, found, ranked, user)
        cut = wanted.cut(ranked)
        return Answer(
            results=cut.results,
            next_page_token=cut.next_page_token,
            candidate_count=cut.candidate_count,
            first_position=cut.first_position,
            generation=found.generation,
            versions=ModelVersions(encoded.version, found.model_version, reranker),
            timings=run.stages.timings(),
            degraded=run.degraded,
        )

    async def _encode(self, run: _Run) -> EncodedQuery:
        # One forward pass for both: the encoder's spares the re-ranker its own.
        return await queries.encode(
            self._encoder,
            run.text,
            run,
            self._policy.encode,
            self._remaining_s,
            with_tokens=self._reranker.reads_tokens,
        )

    async def _user(self, run: _Run) -> Vectors | None:
        """The shopper's vector; `None` where they have none, or it is to have no say."""
        if not run.shopper.user_id or not self._weight(run):
            return None
        try:
            with run.stages.stage("history"):
                left_s = self._policy.history.countdown(self._remaining_s())
                profile = await self._shoppers.profile(run.shopper.user_id, None, left_s)
        except InvalidArgumentError:
            raise
        except AisleError as error:
            _log.debug("shopper not read", why=error.message)
            run.leave_out(Reason.PERSONALIZATION_UNAVAILABLE, f"the same as for everybody: {error.message}")
            return None
        if profile is not None and profile.unread:
            run.leave_out(Reason.PERSONALIZATION_UNAVAILABLE, f"the same as for everybody: {profile.unread}")
        return profile.vector if profile is not None else None

    async def _retrieve(self, run: _Run, query: EncodedQuery, *, with_vectors: bool) -> Found:
        async def search(limit: int) -> Found:
            return await self._retrieval.search(
                vector=query.vector,
                text=run.text,
                mode=query.mode,
                filter_=run.filter_,
                limit=limit,
                with_vectors=with_vectors,
                timeout_s=self._policy.retrieve.timeout_s(self._remaining_s()),
            )

        with run.stages.stage("retrieve"), query.searched():
            found = await run.page.retrieve(search, self._policy.candidate_count)
        query.note(run, found.degraded)
        return found

    async def _rerank(self, run: _Run, query: EncodedQuery, found: Found) -> tuple[list[Ranked], str]:
        """The final order, and the version of the model that made it: empty where none did."""
        first = found.candidates[: self._policy.rerank_count]
        if not first:
            return unranked(found.candidates), ""
        try:
            with run.stages.stage("rerank"):
                reranked = await self._reranker.rerank(
                    run.text,
                    [candidate.item for candidate in first],
                    query.tokens,
                    timeout_s=self._policy.rerank.timeout_s(self._remaining_s()),
                )
        except AisleError as error:
            _log.debug("not re-ranked", why=error.message)
            run.leave_out(Reason.RERANKER_UNAVAILABLE, f"in the index's order: {error.message}")
            return unranked(found.candidates), ""
        unscored = reranked.scores.count(None)
        if unscored == len(first):
            run.leave_out(Reason.RERANKER_UNAVAILABLE, "in the index's order: the re-ranker scored no item")
            return unranked(found.candidates), ""
        if unscored:
            run.leave_out(Reason.RERANKER_PARTIAL, f"{unscored} of {len(first)} items were not scored")
        weight = self._policy.rerank_weights.get(reranked.kind, self._policy.default_rerank_weight)
        return rank(found.candidates, reranked.scores, weight), reranked.model_version

    def _personalise(self, run: _Run, found: Found, ranked: list[Ranked], user: Vectors) -> list[Ranked]:
        if found.vectors is None or not found.candidates:
            return ranked
        if found.vectors.model_version != user.model_version:
            self._shoppers.forget(run.shopper.user_id)
            why = "the items' vectors are another model's than the user's"
            run.leave_out(Reason.PERSONALIZATION_UNAVAILABLE, f"the same as for everybody: {why}")
            return ranked
        ids = (candidate.item_id for candidate in found.candidates)
        likeness = dict(zip(ids, cosines(matrix(found.vectors), user), strict=True))
        return personalised(ranked, likeness, self._weight(run))

    def _weight(self, run: _Run) -> float:
        given = run.shopper.weight
        return self._policy.personalization_weight if given is None else given
