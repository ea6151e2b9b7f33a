import asyncio
from typing import Any

import grpc
import pytest
from aisle.catalog.v1 import filter_pb2
from aisle.encoder.v1 import query_encoder_pb2
from aisle.events.v1 import event_pb2, user_events_pb2
from aisle.gateway.v1 import gateway_pb2

from shared.attribution import DEVELOPMENT_KEY, AttributionTokens
from shared.errors import UnavailableError
from shared.telemetry import metrics
from tests.unit.services.gateway.conftest import Mesh
from tests.unit.services.gateway.test_gateway_rpc import raising, refusal

TOKENS = AttributionTokens(DEVELOPMENT_KEY.encode())


async def test_recommend(mesh: Mesh) -> None:
    response = await mesh.gateway.Recommend(
        gateway_pb2.RecommendRequest(
            context=gateway_pb2.RECOMMEND_CONTEXT_HOME,
            user_id="u",
            filter=filter_pb2.Filter(in_stock=True),
            page_size=2,
            explain=True,
            experiment_arm="b",
            user_model=query_encoder_pb2.USER_MODEL_TEXT,
        )
    )
    requests = mesh.backend.requests
    [history] = requests["GetHistory"]
    assert history.user_id == "u"
    assert list(requests["GetItems"][0].ids) == ["id-3"]
    [encode] = requests["EncodeUsers"]
    assert encode.model == query_encoder_pb2.USER_MODEL_TEXT
    assert [a.text for a in encode.users[0].actions] == ["t"]
    [browse] = requests["BrowseItems"]
    assert browse.filter.all_of.filters[0].in_stock
    assert list(browse.filter.all_of.filters[1].text.values) == ["id-1", "id-0"]
    assert [r.item.id for r in response.results] == ["id-1", "id-0"]
    assert response.results[0].breakdown.related_score == 1.0
    assert not response.info.degraded
    assert response.info.model_versions.index == "v1"
    assert [t.stage for t in response.info.timings] == ["history", "retrieve", "total"]


async def test_what_is_shown_is_told_to_the_log_with_what_led_to_it(mesh: Mesh) -> None:
    told_log = asyncio.Event()

    async def written(request: Any) -> Any:
        told_log.set()
        return user_events_pb2.WriteEventsResponse(accepted=len(request.events))

    mesh.backend.on["WriteEvents"] = written
    first = await mesh.gateway.Search(
        gateway_pb2.SearchRequest(query="bed", user_id="u", page_size=3, experiment_arm="b")
    )
    second = await mesh.gateway.Search(
        gateway_pb2.SearchRequest(query="bed", user_id="u", page_size=3, page_token=first.next_page_token)
    )
    shown = second.results[1].item.id
    found = TOKENS.read(second.info.attribution_token, shown)
    assert found is not None
    assert (found.request_id, found.surface, found.query) == (second.info.request_id, "SEARCH", "bed")
    assert (found.position, found.index_version, found.reranker_version) == (4, "v1", "r1")
    told = TOKENS.read(first.info.attribution_token)
    assert told is not None
    assert told.experiment_arm == "b"
    async with asyncio.timeout(5):
        await told_log.wait()
    events = [event for request in mesh.backend.requests["WriteEvents"] for event in request.events]
    assert [event.first_position for event in events] == [0, 3]
    assert events[1].type == event_pb2.EVENT_TYPE_IMPRESSION
    assert list(events[1].item_ids) == [r.item.id for r in second.results]
    assert events[1].attribution_token == second.info.attribution_token


async def test_a_cold_start_says_so(mesh: Mesh) -> None:
    counted = metrics.ANSWERS_DEGRADED.labels("Recommend")._value.get()
    response = await mesh.gateway.Recommend(gateway_pb2.RecommendRequest(user_id="stranger"))
    assert [d.reason for d in response.info.degraded] == [gateway_pb2.DEGRADED_REASON_COLD_START]
    assert response.results
    assert metrics.ANSWERS_DEGRADED.labels("Recommend")._value.get() == counted


async def test_no_user_id_in_what_is_left_out(mesh: Mesh) -> None:
    mesh.backend.on["GetHistory"] = raising(UnavailableError("user_events"))
    response = await mesh.gateway.Search(gateway_pb2.SearchRequest(query="bed", user_id="user-zoe"))
    assert [d.reason for d in response.info.degraded] == [gateway_pb2.DEGRADED_REASON_PERSONALIZATION_UNAVAILABLE]
    assert "zoe" not in str(response)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (gateway_pb2.RecommendRequest(experiment_arm="x" * 65), "experiment_arm"),
        (gateway_pb2.RecommendRequest(context=99), "context"),
        (gateway_pb2.RecommendRequest(user_model=99), "user_model"),
        (gateway_pb2.RecommendRequest(context=gateway_pb2.RECOMMEND_CONTEXT_BASKET), "item_ids"),
    ],
)
async def test_refusals(mesh: Mesh, request_: gateway_pb2.RecommendRequest, field: str) -> None:
    error = await refusal(mesh.gateway.Recommend(request_))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert (error.details() or "").startswith(field)


async def test_all_that_is_wrong_is_said_at_once(mesh: Mesh) -> None:
    request = gateway_pb2.SearchRequest(experiment_arm="x" * 65, page_size=-1, personalization_weight=2)
    told = (await refusal(mesh.gateway.Search(request))).details() or ""
    assert all(field in told for field in ("query", "experiment_arm", "page_size", "personalization_weight"))
