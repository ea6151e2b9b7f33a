"""The gateway's answers, and what identifies a list of results, on the wire."""

from typing import TYPE_CHECKING, cast

from aisle.gateway.v1 import gateway_pb2

from services.gateway.answers import Answer, Reason
from services.gateway.ranking import Ranked
from shared.rpc.context import request_id

if TYPE_CHECKING:
    from aisle.catalog.v1 import item_pb2

_REASONS = {reason: gateway_pb2.DegradedReason.Value(f"DEGRADED_REASON_{reason.name}") for reason in Reason}

PagedRequest = gateway_pb2.SearchRequest | gateway_pb2.SimilarItemsRequest | gateway_pb2.RecommendRequest

_SHOWN_ONLY = ("page_size", "page_token", "explain", "experiment_arm")
"""Fields that change how a list is shown, or accounted for, and not what is in it: they may differ between pages."""


def identity(request: PagedRequest) -> bytes:
    """What identifies the list that `request` asks for a page of."""
    asked = type(request)()
    asked.CopyFrom(request)  # type: ignore[arg-type]
    for name in _SHOWN_ONLY:
        if name in asked.DESCRIPTOR.fields_by_name:
            asked.ClearField(name)  # type: ignore[arg-type]
    return asked.DESCRIPTOR.full_name.encode() + b"\0" + asked.SerializeToString(deterministic=True)


def result(ranked: Ranked, *, explain: bool) -> gateway_pb2.SearchResult:
    """One result, with its breakdown where that was asked for."""
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
            user_score=ranked.user_score,
            related_score=ranked.related_score,
            popularity_score=ranked.popularity_score,
            personalization=ranked.personalization,
            exploration=ranked.exploration,
        )
        if explain
        else None,
    )


def info(answer: Answer, token: str) -> gateway_pb2.ResponseInfo:
    """How it was answered; `token` attributes events to it."""
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
        attribution_token=token,
    )
