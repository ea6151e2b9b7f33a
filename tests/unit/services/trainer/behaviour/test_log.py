from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from aisle.events.v1 import event_pb2
from aisle.events.v1 import user_events_pb2 as pb

from services.trainer.behaviour import log
from shared.errors import InternalError, UnavailableError


class Broken:
    """A service whose streams break off after some pages with a code, until they do no more."""

    def __init__(self, *plan: tuple[int, grpc.StatusCode | None]) -> None:
        self.plan = list(plan)
        self.cursors: list[str] = []

    async def StreamEvents(self, request: pb.StreamEventsRequest, **_: Any) -> AsyncIterator[pb.StreamEventsResponse]:
        self.cursors.append(request.cursor)
        pages, code = self.plan.pop(0)
        for _ in range(pages):
            yield pb.StreamEventsResponse(cursor=f"{request.cursor}x")
        if code is not None:
            raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


async def read(service: Broken) -> list[str]:
    return [page.cursor async for page in log._pages(service, "")]  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_WAIT_S", 0.0)


async def test_a_stream_that_breaks_off_goes_on_behind_its_last_page() -> None:
    service = Broken((1, grpc.StatusCode.UNAVAILABLE), (0, grpc.StatusCode.DEADLINE_EXCEEDED), (1, None))
    assert await read(service) == ["x", "xx"]
    assert service.cursors == ["", "x", "x"]


async def test_a_service_that_stays_away_is_given_up() -> None:
    service = Broken(*[(0, grpc.StatusCode.UNAVAILABLE)] * log._TRIES)
    with pytest.raises(UnavailableError):
        await read(service)
    assert service.plan == []


async def test_what_is_no_passing_fault_is_not_tried_again() -> None:
    service = Broken((1, grpc.StatusCode.INTERNAL))
    with pytest.raises(InternalError):
        await read(service)


def test_an_event_keeps_what_is_learnt_from_and_nothing_else() -> None:
    logged = pb.LoggedEvent(
        event=pb.PastEvent(
            id="e", type=event_pb2.EVENT_TYPE_CLICK, item_id="a", query="typed", quantity=2,
            attribution=event_pb2.Attribution(request_id="r", surface="SEARCH", query="lamp", position=0),
        ),
        user_key=b"u", properties={"device": "phone"},
    )  # fmt: skip
    logged.event.occurred_at.FromSeconds(7)
    row = log._row(logged)
    assert {name: value for name, value in row.items() if value} == {
        "type": "CLICK", "occurred_at": 7_000_000, "user_key": b"u", "item_id": "a", "request_id": "r",
        "surface": "SEARCH", "query": "lamp",
    }  # fmt: skip
    assert (row["position"], row["session_key"]) == (0, None)
    logged.event.ClearField("attribution")
    assert "request_id" not in log._row(logged)


def test_searches_are_not_asked_for() -> None:
    assert event_pb2.EVENT_TYPE_SEARCH not in log._TYPES
    assert event_pb2.EVENT_TYPE_IMPRESSION in log._TYPES
