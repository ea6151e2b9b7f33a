"""A caller of the service, and events for it to send."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from aisle.events.v1 import event_pb2
from aisle.events.v1 import user_events_pb2 as pb
from google.protobuf import timestamp_pb2

from services.user_events.servicer import UserEventsServicer
from services.user_events.store import Store

T = event_pb2.EventType
SEARCH, IMPRESSION, VIEW, CLICK = (
    T.EVENT_TYPE_SEARCH,
    T.EVENT_TYPE_IMPRESSION,
    T.EVENT_TYPE_VIEW,
    T.EVENT_TYPE_CLICK,
)
CART, UNCART, PURCHASE, RETURN = (
    T.EVENT_TYPE_ADD_TO_CART,
    T.EVENT_TYPE_REMOVE_FROM_CART,
    T.EVENT_TYPE_PURCHASE,
    T.EVENT_TYPE_RETURN,
)


def fresh(kind: str = "id") -> str:
    """A name that nobody had before."""
    return f"{kind}-{uuid.uuid4().hex}"


def ago(**how_long: float) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(datetime.now(UTC) - timedelta(**how_long))
    return stamp


def event(type: int = VIEW, **fields: Any) -> event_pb2.Event:  # noqa: A002
    """An event that can be stored, of a new user and with a new id unless said otherwise."""
    defaults: dict[str, Any] = {"id": fresh("event"), "user_id": fresh("user")}
    if type == SEARCH:
        defaults["query"] = "lamp"
    elif type == IMPRESSION:
        defaults["item_ids"] = ["a", "b"]
    else:
        defaults["item_id"] = "a"
    return event_pb2.Event(type=type, **{**defaults, **fields})  # type: ignore[arg-type]


class Client:
    """Calls the servicer as gRPC would."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._servicer = UserEventsServicer(store)

    async def write(self, *events: event_pb2.Event) -> pb.WriteEventsResponse:
        return await self._servicer.WriteEvents(pb.WriteEventsRequest(events=events), None)

    async def history(self, user_id: str, **fields: Any) -> pb.GetHistoryResponse:
        return await self._servicer.GetHistory(pb.GetHistoryRequest(user_id=user_id, **fields), None)

    async def stats(self, *item_ids: str, **fields: Any) -> list[pb.ItemStats]:
        request = pb.GetItemStatsRequest(item_ids=item_ids, **fields)
        return list((await self._servicer.GetItemStats(request, None)).stats)

    async def popular(self, **fields: Any) -> list[pb.ScoredItem]:
        return list((await self._servicer.ListPopularItems(pb.ListPopularItemsRequest(**fields), None)).items)

    async def related(self, weights: dict[str, float], **fields: Any) -> pb.GetRelatedItemsResponse:
        items = [pb.WeightedItem(item_id=item_id, weight=weight) for item_id, weight in weights.items()]
        return await self._servicer.GetRelatedItems(pb.GetRelatedItemsRequest(items=items, **fields), None)

    async def pages(self, **fields: Any) -> list[pb.StreamEventsResponse]:
        return [page async for page in self._servicer.StreamEvents(pb.StreamEventsRequest(**fields), None)]

    async def log(self, **fields: Any) -> list[pb.LoggedEvent]:
        return [logged for page in await self.pages(**fields) for logged in page.events]

    async def end(self) -> str:
        """The cursor behind all that is there."""
        return (await self.pages() or [pb.StreamEventsResponse()])[-1].cursor

    async def export(self, user_id: str) -> list[pb.LoggedEvent]:
        request = pb.ExportUserRequest(user_id=user_id)
        return [logged async for page in self._servicer.ExportUser(request, None) for logged in page.events]

    async def known_since(self, *user_keys: bytes) -> list[pb.KnownUser]:
        return list((await self._servicer.GetKnownSince(pb.GetKnownSinceRequest(user_keys=user_keys), None)).users)

    async def forget(self, user_id: str) -> pb.ForgetReceipt:
        return (await self._servicer.ForgetUser(pb.ForgetUserRequest(user_id=user_id), None)).receipt
