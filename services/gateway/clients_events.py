"""`UserEventsPort` over `aisle.events.v1.UserEvents`."""

from collections.abc import Sequence
from datetime import timedelta

from aisle.events.v1 import event_pb2, user_events_pb2, user_events_pb2_grpc
from google.protobuf.duration_pb2 import Duration

from services.gateway import wire
from services.gateway.breaker import Guard
from services.gateway.clients_base import Client
from services.gateway.ports import EventType, History, Impression, PastEvent, RowError, ScoredItem
from shared.errors import InternalError
from shared.rpc.client import Dependency

_TYPES = {kind: event_pb2.EventType.Value(f"EVENT_TYPE_{kind.name}") for kind in EventType}
_KINDS: dict[int, EventType] = {number: kind for kind, number in _TYPES.items()}


class UserEventsClient(Client):
    """The log. Writes have a guard of their own: a log that is slow to write may well answer."""

    def __init__(self, dependency: Dependency, guard: Guard, write_guard: Guard) -> None:
        super().__init__(dependency, guard, {"user_id": "user_id"})
        self._writes = write_guard
        self._stub = user_events_pb2_grpc.UserEventsStub(dependency.channel)

    async def history(
        self,
        user_id: str,
        *,
        types: Sequence[EventType] = (),
        limit: int,
        known_version: int = 0,
        timeout_s: float,
    ) -> History:
        """The user's latest events."""
        request = user_events_pb2.GetHistoryRequest(
            user_id=user_id, types=[_TYPES[kind] for kind in types], limit=limit, known_version=known_version
        )
        response: user_events_pb2.GetHistoryResponse = await self._call(self._stub.GetHistory, request, timeout_s)
        # A type that a newer log knows tells this gateway nothing.
        events = [_past(event) for event in response.events if event.type in _KINDS]
        return History(events, response.version, response.unchanged)

    async def related(self, items: Sequence[ScoredItem], *, limit: int, timeout_s: float) -> Sequence[ScoredItem]:
        """What goes with `items`."""
        request = user_events_pb2.GetRelatedItemsRequest(
            items=[user_events_pb2.WeightedItem(item_id=item.item_id, weight=item.score) for item in items], limit=limit
        )
        response: user_events_pb2.GetRelatedItemsResponse = await self._call(
            self._stub.GetRelatedItems, request, timeout_s
        )
        return [ScoredItem(item.item_id, item.score) for item in response.items]

    async def popular(self, *, window_s: float, limit: int, timeout_s: float) -> Sequence[ScoredItem]:
        """What is popular."""
        window = Duration()
        window.FromTimedelta(timedelta(seconds=window_s))
        request = user_events_pb2.ListPopularItemsRequest(window=window, limit=limit)
        response: user_events_pb2.ListPopularItemsResponse = await self._call(
            self._stub.ListPopularItems, request, timeout_s
        )
        return [ScoredItem(item.item_id, item.score) for item in response.items]

    async def impressions(self, ids: Sequence[str], *, timeout_s: float) -> Sequence[int]:
        """One an id."""
        request = user_events_pb2.GetItemStatsRequest(item_ids=ids)
        response: user_events_pb2.GetItemStatsResponse = await self._call(self._stub.GetItemStats, request, timeout_s)
        if len(response.stats) != len(ids):
            raise InternalError(f"{self._dependency.name} answered {len(response.stats)} of {len(ids)} items")
        return [item.impressions for item in response.stats]

    async def write(self, events: Sequence[Impression], *, timeout_s: float) -> Sequence[RowError]:
        """The rows refused."""
        request = user_events_pb2.WriteEventsRequest(events=map(_event, events))
        response: user_events_pb2.WriteEventsResponse = await self._call(
            self._stub.WriteEvents, request, timeout_s, self._writes
        )
        return wire.row_errors(response.errors, len(events), self._dependency.name)


def _past(event: user_events_pb2.PastEvent) -> PastEvent:
    at = event.occurred_at
    return PastEvent(_KINDS[event.type], at.seconds + at.nanos / 1e9, event.item_id, event.query)


def _event(shown: Impression) -> event_pb2.Event:
    return event_pb2.Event(
        id=shown.id,
        type=event_pb2.EVENT_TYPE_IMPRESSION,
        user_id=shown.user_id,
        item_ids=shown.item_ids,
        first_position=shown.first_position,
        attribution_token=shown.attribution_token,
        sampled_one_in=shown.sampled_one_in,
    )
