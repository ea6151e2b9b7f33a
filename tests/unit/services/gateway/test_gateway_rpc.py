import asyncio
from typing import Any

import grpc
import pytest
from aisle.catalog.v1 import filter_pb2
from aisle.encoder.v1 import query_encoder_pb2
from aisle.gateway.v1 import gateway_pb2
from aisle.rerank.v1 import reranker_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from shared.errors import InternalError, InvalidArgumentError, OverloadedError, UnavailableError, VersionMismatchError
from shared.telemetry import metrics
from tests.unit.services.gateway.conftest import Mesh

GATEWAY = "aisle.gateway.v1.Gateway"
CATALOG = "aisle.gateway.v1.Catalog"


def raising(error: Exception) -> Any:
    async def behaviour(request: Any) -> Any:
        raise error

    return behaviour


def details(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    for packed in status.details:
        found = kind()
        if packed.Unpack(found):
            return found
    raise AssertionError(f"no {kind.__name__} in {status}")


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


async def test_search(mesh: Mesh) -> None:
    request = gateway_pb2.SearchRequest(
        query=" bunk bed ",
        filter=filter_pb2.Filter(in_stock=True),
        page_size=3,
        candidate_count=12,
        explain=True,
    )
    call = mesh.gateway.Search(request, metadata=(("x-request-id", "my-id"),))
    response = await call
    [sent] = mesh.backend.requests["Search"]
    assert (list(sent.texts), sent.limit, sent.filter) == (["bunk bed"], 12, request.filter)
    assert sent.mode == vector_retrieval_pb2.SEARCH_MODE_HYBRID
    assert (len(sent.embeddings.data), sent.embeddings.dimensions, sent.embeddings.model_version) == (8, 2, "v1")
    assert [len(r.items) for r in mesh.backend.requests["Rerank"]] == [12]
    assert len(response.results) == 3
    first = response.results[0]
    assert first.item.title.startswith("Item ")
    assert first.breakdown.HasField("rerank_score")
    assert not first.breakdown.HasField("lexical_score")
    assert first.breakdown.dense_rank >= 1
    info = response.info
    assert (info.request_id, info.candidate_count, info.generation) == ("my-id", 12, "g1")
    assert [t.stage for t in info.timings] == ["encode", "retrieve", "rerank", "total"]
    assert (info.model_versions.query_encoder, info.model_versions.reranker) == ("v1", "r1")
    assert not info.degraded


async def test_breakdown_only_when_asked_for(mesh: Mesh) -> None:
    response = await mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed"))
    assert not response.results[0].HasField("breakdown")


async def test_pages(mesh: Mesh) -> None:
    request = gateway_pb2.SearchRequest(query="bed", page_size=8)
    ids: list[str] = []
    for _ in range(3):
        response = await mesh.gateway.Search(request)
        ids += [r.item.id for r in response.results]
        request.page_token = response.next_page_token
    assert sorted(ids) == sorted(f"id-{at}" for at in range(20))
    assert response.next_page_token == ""


@pytest.mark.parametrize(
    "change", [{"query": "beds"}, {"candidate_count": 19}, {"filter": filter_pb2.Filter(in_stock=False)}]
)
async def test_a_token_is_bound_to_its_request(mesh: Mesh, change: dict[str, Any]) -> None:
    first = await mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed"))
    request = gateway_pb2.SearchRequest(**{"query": "bed", "page_token": first.next_page_token, **change})
    error = await refusal(mesh.gateway.Search(request))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in details(error, error_details_pb2.BadRequest).field_violations] == ["page_token"]


async def test_a_search_token_is_no_similar_items_token(mesh: Mesh) -> None:
    first = await mesh.gateway.Search(gateway_pb2.SearchRequest(query="a"))
    request = gateway_pb2.SimilarItemsRequest(item_id="a", page_token=first.next_page_token)
    assert (await refusal(mesh.gateway.SimilarItems(request))).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_every_violation_at_once(mesh: Mesh) -> None:
    error = await refusal(mesh.gateway.Search(gateway_pb2.SearchRequest(query="\t", page_size=101)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    fields = [v.field for v in details(error, error_details_pb2.BadRequest).field_violations]
    assert fields == ["query", "page_size"]


async def test_the_filter_is_judged_by_the_index_and_keeps_its_path(mesh: Mesh) -> None:
    mesh.backend.on["Search"] = raising(InvalidArgumentError.of("filter.all_of.filters[1].text.field", "is not known"))
    error = await refusal(mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed")))
    [violation] = details(error, error_details_pb2.BadRequest).field_violations
    assert (violation.field, violation.description) == ("filter.all_of.filters[1].text.field", "is not known")


@pytest.mark.parametrize(
    ("method", "field", "code"),
    [
        ("Search", "texts[0]", grpc.StatusCode.INVALID_ARGUMENT),
        ("EncodeQueries", "queries[0]", grpc.StatusCode.INVALID_ARGUMENT),
        ("Search", "limit", grpc.StatusCode.INTERNAL),
        ("Search", "embeddings.data", grpc.StatusCode.INTERNAL),
    ],
)
async def test_what_the_caller_did_not_write_is_not_blamed_on_it(
    mesh: Mesh, method: str, field: str, code: grpc.StatusCode
) -> None:
    mesh.backend.on[method] = raising(InvalidArgumentError.of(field, "is wrong"))
    error = await refusal(mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed")))
    assert error.code() is code
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        assert [v.field for v in details(error, error_details_pb2.BadRequest).field_violations] == ["query"]


async def test_the_kind_of_reranker_is_asked_once(mesh: Mesh) -> None:
    for _ in range(3):
        await mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed"))
    assert len(mesh.backend.requests["GetModel"]) == 1


async def test_a_reranker_that_does_not_say_what_it_is_still_ranks(mesh: Mesh) -> None:
    del mesh.backend.on["GetModel"]
    response = await mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed"))
    assert not response.info.degraded
    assert response.info.model_versions.reranker == "r1"


async def test_scores_that_are_not_numbers_count_as_unscored(mesh: Mesh) -> None:
    async def rerank(request: Any) -> Any:
        scores = [reranker_pb2.RerankScore(score=float("nan"))] + [reranker_pb2.RerankScore(score=1.0)] * 19
        return reranker_pb2.RerankResponse(scores=scores, model_version="r1")

    mesh.backend.on["Rerank"] = rerank
    response = await mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed", page_size=20))
    assert [d.reason for d in response.info.degraded] == [gateway_pb2.DEGRADED_REASON_RERANKER_PARTIAL]
    assert response.results[-1].item.id == "id-0"


@pytest.mark.parametrize("count", [0, 19, 21])
async def test_a_reranker_that_miscounts_is_left_out(mesh: Mesh, count: int) -> None:
    async def rerank(request: Any) -> Any:
        return reranker_pb2.RerankResponse(scores=[reranker_pb2.RerankScore(score=1.0)] * count)

    mesh.backend.on["Rerank"] = rerank
    response = await mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed"))
    assert [d.reason for d in response.info.degraded] == [gateway_pb2.DEGRADED_REASON_RERANKER_UNAVAILABLE]


async def test_a_query_that_fails_alone_is_searched_by_words(mesh: Mesh) -> None:
    async def encode(request: Any) -> Any:
        response = query_encoder_pb2.EncodeQueriesResponse()
        response.errors.add(row=0, reason="ENCODE_FAILED")
        return response

    mesh.backend.on["EncodeQueries"] = encode
    response = await mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed"))
    assert [d.reason for d in response.info.degraded] == [gateway_pb2.DEGRADED_REASON_QUERY_ENCODER_UNAVAILABLE]
    assert mesh.backend.requests["Search"][0].mode == vector_retrieval_pb2.SEARCH_MODE_LEXICAL
    assert not mesh.backend.requests["Search"][0].HasField("embeddings")


@pytest.mark.parametrize("error", [OverloadedError("full"), InternalError("bug"), UnavailableError("x")])
async def test_both_models_failing_still_answers(mesh: Mesh, error: Exception) -> None:
    mesh.backend.on["EncodeQueries"] = mesh.backend.on["Rerank"] = raising(error)
    response = await mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed"))
    assert [r.item.id for r in response.results] == [f"id-{at}" for at in range(10)]
    assert [d.reason for d in response.info.degraded] == [
        gateway_pb2.DEGRADED_REASON_QUERY_ENCODER_UNAVAILABLE,
        gateway_pb2.DEGRADED_REASON_RERANKER_UNAVAILABLE,
    ]


async def test_what_the_index_left_out_is_passed_on(mesh: Mesh) -> None:
    original = mesh.backend.on["Search"]

    async def search(request: Any) -> Any:
        response = await original(request)
        response.degraded.append("PREVIOUS_GENERATION")
        return response

    mesh.backend.on["Search"] = search
    for answer in (
        await mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed")),
        await mesh.gateway.SimilarItems(gateway_pb2.SimilarItemsRequest(item_id="a")),
    ):
        assert [d.reason for d in answer.info.degraded] == [gateway_pb2.DEGRADED_REASON_PREVIOUS_GENERATION]


async def test_versions_that_do_not_match_are_both_named(mesh: Mesh) -> None:
    mesh.backend.on["Search"] = raising(VersionMismatchError("v2", "v1"))
    error = await refusal(mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed")))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    info = details(error, error_details_pb2.ErrorInfo)
    assert (info.reason, dict(info.metadata)) == ("MODEL_VERSION_MISMATCH", {"got": "v2", "expected": "v1"})


@pytest.mark.parametrize("mesh", [{"encode_cap_s": 0.2, "retrieve_cap_s": 0.2, "rerank_cap_s": 0.2}], indirect=True)
async def test_a_hung_index_is_unavailable_inside_the_deadline_and_hung_models_are_left_out(mesh: Mesh) -> None:
    async def hang(request: Any) -> Any:
        await asyncio.Event().wait()

    mesh.backend.on["EncodeQueries"] = mesh.backend.on["Rerank"] = hang
    counted = metrics.ANSWERS_DEGRADED.labels("Search")._value.get()
    response = await mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed"), timeout=20)
    assert len(response.info.degraded) == 2
    assert metrics.ANSWERS_DEGRADED.labels("Search")._value.get() == counted + 1
    assert all("did not answer" in d.message for d in response.info.degraded)
    mesh.backend.on["Search"] = hang
    error = await refusal(mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed"), timeout=20))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert details(error, error_details_pb2.ErrorInfo).metadata["dependency"] == "vector_retrieval"
    assert details(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0


async def test_a_caller_that_leaves_ends_the_work_behind(mesh: Mesh) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def hang(request: Any) -> Any:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    mesh.backend.on["Rerank"] = hang
    call = mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed"))
    waiting = asyncio.ensure_future(call.code())
    await started.wait()
    call.cancel()
    assert await waiting is grpc.StatusCode.CANCELLED
    await ended.wait()


async def test_similar_items(mesh: Mesh) -> None:
    response = await mesh.gateway.SimilarItems(gateway_pb2.SimilarItemsRequest(item_id="a", page_size=3, explain=True))
    [sent] = mesh.backend.requests["Search"]
    assert (list(sent.exclude_ids), list(sent.texts)) == (["a"], [])
    assert sent.mode == vector_retrieval_pb2.SEARCH_MODE_DENSE
    assert [r.item.id for r in response.results] == ["id-0", "id-1", "id-2"]
    assert response.results[0].breakdown.dense_score == 0.5
    assert [t.stage for t in response.info.timings] == ["lookup", "retrieve", "total"]
    error = await refusal(mesh.gateway.SimilarItems(gateway_pb2.SimilarItemsRequest(item_id="gone")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert details(error, error_details_pb2.ResourceInfo).resource_name == "gone"


async def test_health_follows_what_cannot_be_done_without(mesh: Mesh) -> None:
    assert list(mesh.services) == [GATEWAY, CATALOG]
    assert [await s.check() for s in mesh.services.values()] == [None, None]
    not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
    for soft in ("aisle.encoder.v1.QueryEncoder", "aisle.rerank.v1.Reranker"):
        await mesh.health.set(soft, not_serving)
    assert [await s.check() for s in mesh.services.values()] == [None, None]
    await mesh.health.set("aisle.encoder.v1.ItemEncoder", not_serving)
    assert await mesh.services[GATEWAY].check() is None
    assert "item_encoder" in (await mesh.services[CATALOG].check() or "")
    await mesh.health.set("aisle.retrieval.v1.VectorRetrieval", not_serving)
    assert "vector_retrieval" in (await mesh.services[GATEWAY].check() or "")


async def test_index_gone(mesh: Mesh) -> None:
    await mesh.stop_backend()
    for _ in range(5):
        error = await refusal(mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed"), timeout=5.0))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert details(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0
    assert "vector_retrieval" in (await mesh.services[GATEWAY].check() or "")


@pytest.mark.parametrize("mesh", [{"max_running": 1, "max_waiting": 0}], indirect=True)
@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Search", gateway_pb2.SearchRequest(query="bed")),
        ("SimilarItems", gateway_pb2.SimilarItemsRequest(item_id="i1")),
        ("Recommend", gateway_pb2.RecommendRequest(user_id="u1")),
    ],
)
async def test_what_is_more_than_may_be_worked_on_is_refused(mesh: Mesh, method: str, request_: Any) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()
    search = mesh.backend.on["Search"]

    async def slow(request: Any) -> Any:
        begun.set()
        await goes_on.wait()
        return await search(request)

    mesh.backend.on["Search"] = slow
    first = asyncio.ensure_future(mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed")))
    await begun.wait()
    error = await refusal(getattr(mesh.gateway, method)(request_))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(error, error_details_pb2.ErrorInfo).reason == "QUEUE_FULL"
    assert details(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0
    async with grpc.aio.insecure_channel(mesh.address) as channel:
        unread = channel.unary_unary(f"/{GATEWAY}/{method}", request_serializer=bytes, response_deserializer=bytes)
        # Read, it would be INVALID_ARGUMENT.
        assert (await refusal(unread(b"\xff\xff"))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    goes_on.set()
    assert (await first).results
    assert (await mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed"))).results
