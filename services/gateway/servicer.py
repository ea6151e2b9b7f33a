"""`aisle.gateway.v1.Gateway`: the wire ↔ `search.py`, `similar.py` and `recommend.py`."""

from collections.abc import Mapping
from functools import cache
from typing import TypeVar

import grpc
from aisle.encoder.v1 import query_encoder_pb2
from aisle.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from services.gateway import asks, wire_answers
from services.gateway.admission import Admission, Refusal
from services.gateway.answers import Answer, PageRequest, Reason
from services.gateway.asks import Ask, Context
from services.gateway.impressions import Impressions
from services.gateway.ports import UserModel
from services.gateway.recommend import Recommender
from services.gateway.search import Searcher, Shopper
from services.gateway.similar import SimilarFinder
from services.gateway.stages import TOTAL
from services.gateway.wire_answers import PagedRequest
from shared.attribution import Attribution, AttributionTokens
from shared.errors import InvalidArgumentError
from shared.rpc.context import request_id
from shared.telemetry import metrics, tracing

T = TypeVar("T")
RpcContext = grpc.aio.ServicerContext[object, object]

_CONTEXTS: Mapping[int, Context] = {
    gateway_pb2.RECOMMEND_CONTEXT_UNSPECIFIED: Context.HOME,
    **{gateway_pb2.RecommendContext.Value(f"RECOMMEND_CONTEXT_{context.name}"): context for context in Context},
}
_USER_MODELS: Mapping[int, UserModel | None] = {
    query_encoder_pb2.USER_MODEL_UNSPECIFIED: None,
    **{query_encoder_pb2.UserModel.Value(f"USER_MODEL_{model.name}"): model for model in UserModel},
}
_STAGES = {
    "Search": ("encode", "history", "retrieve", "rerank", TOTAL),
    "SimilarItems": ("lookup", "retrieve", TOTAL),
    "Recommend": ("history", "encode", "lookup", "retrieve", "browse", "stats", TOTAL),
}
_DEGRADED = {
    "Search": tuple(reason for reason in Reason if reason is not Reason.COLD_START),
    "SimilarItems": (Reason.PREVIOUS_GENERATION,),
    "Recommend": (
        Reason.QUERY_ENCODER_UNAVAILABLE,
        Reason.PREVIOUS_GENERATION,
        Reason.PERSONALIZATION_UNAVAILABLE,
        Reason.COLD_START,
    ),
}

# Found once: to look a series up by its labels takes as long as to count.
_stage_seconds = cache(metrics.STAGE_SECONDS.labels)
_candidates = cache(metrics.CANDIDATES.labels)


class GatewayServicer(gateway_pb2_grpc.GatewayServicer):
    """Search, similar items, recommendations."""

    def __init__(
        self,
        admission: Admission,
        searcher: Searcher,
        similar: SimilarFinder,
        recommender: Recommender,
        attribution: AttributionTokens,
        impressions: Impressions,
    ) -> None:
        self._admission = admission
        self._searcher = searcher
        self._similar = similar
        self._recommender = recommender
        self._attribution = attribution
        self._impressions = impressions
        _initialise_metrics()

    async def Search(self, request: gateway_pb2.SearchRequest, context: RpcContext) -> gateway_pb2.SearchResponse:
        """Finds items for what a shopper typed."""
        weight = request.personalization_weight if request.HasField("personalization_weight") else None
        answer = await self._admission.run(
            "Search",
            lambda: self._searcher.search(request.query, _page(request), Shopper(request.user_id, weight)),
        )
        _observe("Search", answer)
        return gateway_pb2.SearchResponse(
            results=[wire_answers.result(ranked, explain=request.explain) for ranked in answer.results],
            next_page_token=answer.next_page_token,
            info=self._info(
                answer,
                user_id=request.user_id,
                surface="SEARCH",
                query=request.query.strip(),
                experiment_arm=request.experiment_arm,
            ),
        )

    async def SimilarItems(
        self, request: gateway_pb2.SimilarItemsRequest, context: RpcContext
    ) -> gateway_pb2.SimilarItemsResponse:
        """Finds items like one the shopper looks at."""
        answer = await self._admission.run(
            "SimilarItems", lambda: self._similar.similar(request.item_id, _page(request))
        )
        _observe("SimilarItems", answer)
        return gateway_pb2.SimilarItemsResponse(
            results=[wire_answers.result(ranked, explain=request.explain) for ranked in answer.results],
            next_page_token=answer.next_page_token,
            info=self._info(answer, surface=Context.SIMILAR_ITEMS.name),
        )

    async def Recommend(
        self, request: gateway_pb2.RecommendRequest, context: RpcContext
    ) -> gateway_pb2.RecommendResponse:
        """Finds items for a shopper."""

        async def recommend() -> tuple[Ask, Answer]:
            # Read only once it is let in.
            ask = _ask(request)
            return ask, await self._recommender.recommend(ask, _page(request))

        ask, answer = await self._admission.run("Recommend", recommend)
        _observe("Recommend", answer)
        return gateway_pb2.RecommendResponse(
            results=[wire_answers.result(ranked, explain=request.explain) for ranked in answer.results],
            next_page_token=answer.next_page_token,
            info=self._info(
                answer,
                user_id=request.user_id,
                surface=ask.context.name,
                query=request.query.strip(),
                experiment_arm=request.experiment_arm,
            ),
        )

    def _info(
        self, answer: Answer, *, surface: str, user_id: str = "", query: str = "", experiment_arm: str = ""
    ) -> gateway_pb2.ResponseInfo:
        """How it was answered; notes that it was shown."""
        attribution = Attribution(
            request_id=request_id(),
            surface=surface,
            query=query,
            experiment_arm=experiment_arm,
            encoder_version=answer.versions.query_encoder,
            index_version=answer.versions.index,
            reranker_version=answer.versions.reranker,
            generation=answer.generation,
            candidate_count=answer.candidate_count,
        )
        ids = [ranked.candidate.item_id for ranked in answer.results]
        token = self._attribution.issue(attribution, ids, answer.first_position)
        self._impressions.shown(user_id, ids, answer.first_position, token)
        return wire_answers.info(answer, token)


def _ask(request: gateway_pb2.RecommendRequest) -> Ask:
    return Ask(
        context=_known(_CONTEXTS, request.context, "context"),
        user_id=request.user_id,
        item_ids=tuple(request.item_ids),
        query=request.query,
        exclude_seen=request.exclude_seen,
        exclude_purchased=request.exclude_purchased,
        diversity=request.diversity if request.HasField("diversity") else None,
        user_model=_known(_USER_MODELS, request.user_model, "user_model"),
    )


def _known(table: Mapping[int, T], value: int, field: str) -> T:
    """What `value` stands for. Raises `InvalidArgumentError` for a number that a newer contract may have."""
    if value not in table:
        raise InvalidArgumentError.of(field, f"is {value}, which this server does not know")
    return table[value]


def _page(request: PagedRequest) -> PageRequest:
    arm = "" if isinstance(request, gateway_pb2.SimilarItemsRequest) else request.experiment_arm
    return PageRequest(
        fingerprint=wire_answers.identity(request),
        filter_=request.filter if request.HasField("filter") else None,
        page_size=request.page_size,
        page_token=request.page_token,
        candidate_count=request.candidate_count,
        problems=asks.arm_problems(arm),
    )


def _observe(method: str, answer: Answer) -> None:
    for timing in answer.timings:
        _stage_seconds(method, timing.stage).observe(timing.milliseconds / 1000, tracing.exemplar())
    for degradation in answer.degraded:
        metrics.DEGRADED.labels(method, degradation.reason.name).inc()
    if any(degradation.reason is not Reason.COLD_START for degradation in answer.degraded):
        metrics.ANSWERS_DEGRADED.labels(method).inc()
    _candidates(method).observe(answer.candidate_count)
    if not answer.candidate_count:
        metrics.ZERO_RESULTS.labels(method).inc()


def _initialise_metrics() -> None:
    """Makes every series exist before the first request, so that a rate over it is 0 and not absent."""
    for method, stages in _STAGES.items():
        metrics.ZERO_RESULTS.labels(method)
        metrics.ANSWERS_DEGRADED.labels(method)
        metrics.CANDIDATES.labels(method)
        for stage in stages:
            metrics.STAGE_SECONDS.labels(method, stage)
        for reason in _DEGRADED[method]:
            metrics.DEGRADED.labels(method, reason.name)
        for refusal in Refusal:
            metrics.REQUESTS_REFUSED.labels(method, refusal.value)
