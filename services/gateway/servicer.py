"""`aisle.gateway.v1.Gateway`: the wire ↔ `search.py` and `similar.py`."""

from typing import TYPE_CHECKING, cast

import grpc
from aisle.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from services.gateway.answers import Answer, PageRequest, Reason
from services.gateway.paging import fingerprint
from services.gateway.ranking import Ranked
from services.gateway.search import Searcher
from services.gateway.similar import SimilarFinder
from services.gateway.stages import TOTAL
from shared.rpc.context import request_id
from shared.telemetry import metrics

if TYPE_CHECKING:
    from aisle.catalog.v1 import item_pb2

Context = grpc.aio.ServicerContext[object, object]

_REASONS = {reason: gateway_pb2.DegradedReason.Value(f"DEGRADED_REASON_{reason.name}") for reason in Reason}

_STAGES = {"Search": ("encode", "retrieve", "rerank", TOTAL), "SimilarItems": ("lookup", "retrieve", TOTAL)}


class GatewayServicer(gateway_pb2_grpc.GatewayServicer):
    """Search and similar items."""

    def __init__(self, searcher: Searcher, similar: SimilarFinder) -> None:
        self._searcher = searcher
        self._similar = similar
        _initialise_metrics()

    async def Search(self, request: gateway_pb2.SearchRequest, context: Context) -> gateway_pb2.SearchResponse:
        """Finds items for what a shopper typed."""
        answer = await self._searcher.search(request.query, _page(request, "Search", request.query))
        _observe("Search", answer)
        return gateway_pb2.SearchResponse(
            results=[_result(ranked, request.explain) for ranked in answer.results],
            next_page_token=answer.next_page_token,
            info=_info(answer),
        )

    async def SimilarItems(
        self, request: gateway_pb2.SimilarItemsRequest, context: Context
    ) -> gateway_pb2.SimilarItemsResponse:
        """Finds items like one the shopper looks at."""
        answer = await self._similar.similar(request.item_id, _page(request, "SimilarItems", request.item_id))
        _observe("SimilarItems", answer)
        return gateway_pb2.SimilarItemsResponse(
            results=[_result(ranked, request.explain) for ranked in answer.results],
            next_page_token=answer.next_page_token,
            info=_info(answer),
        )


def _page(
    request: gateway_pb2.SearchRequest | gateway_pb2.SimilarItemsRequest, method: str, subject: str
) -> PageRequest:
    filter_ = request.filter if request.HasField("filter") else None
    # `page_size` and `explain` change how a list is shown and not what is in it, so they may differ between pages.
    identity = fingerprint(
        method.encode(),
        subject.encode(),
        b"" if filter_ is None else filter_.SerializeToString(deterministic=True),
        str(request.candidate_count).encode(),
    )
    return PageRequest(
        fingerprint=identity,
        filter_=filter_,
        page_size=request.page_size,
        page_token=request.page_token,
        candidate_count=request.candidate_count,
    )


def _result(ranked: Ranked, explain: bool) -> gateway_pb2.SearchResult:
    found = ranked.candidate
    return gateway_pb2.SearchResult(
        item=cast("item_pb2.Item", found.item),
        score=ranked.score,
        breakdown=gateway_pb2.ScoreBreakdown(
            dense_score=found.dense_score,
            dense_rank=found.dense_rank,
            lexical_score=found.lexical_score,
            lexical_rank=found.lexical_rank,
            retrieval_score=found.score,
            rerank_score=ranked.rerank_score,
        )
        if explain
        else None,
    )


def _info(answer: Answer) -> gateway_pb2.ResponseInfo:
    return gateway_pb2.ResponseInfo(
        request_id=request_id(),
        degraded=[gateway_pb2.Degradation(reason=_REASONS[d.reason], message=d.message) for d in answer.degraded],
        timings=[gateway_pb2.StageTiming(stage=t.stage, milliseconds=t.milliseconds) for t in answer.timings],
        model_versions=gateway_pb2.ModelVersions(
            query_encoder=answer.versions.query_encoder,
            index=answer.versions.index,
            reranker=answer.versions.reranker,
        ),
        candidate_count=answer.candidate_count,
        generation=answer.generation,
    )


def _observe(method: str, answer: Answer) -> None:
    for timing in answer.timings:
        metrics.STAGE_SECONDS.labels(method, timing.stage).observe(timing.milliseconds / 1000)
    for degradation in answer.degraded:
        metrics.DEGRADED.labels(method, degradation.reason.name).inc()
    if not answer.candidate_count:
        metrics.ZERO_RESULTS.labels(method).inc()


def _initialise_metrics() -> None:
    """Makes every series exist before the first request, so that a rate over it is 0 and not absent."""
    for method, stages in _STAGES.items():
        metrics.ZERO_RESULTS.labels(method)
        for stage in stages:
            metrics.STAGE_SECONDS.labels(method, stage)
    for reason in Reason:
        metrics.DEGRADED.labels("Search", reason.name)
    metrics.DEGRADED.labels("SimilarItems", Reason.PREVIOUS_GENERATION.name)
