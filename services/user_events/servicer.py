"""The gRPC face of the store: proto ↔ domain, nothing else."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aisle.events.v1 import event_pb2, user_events_pb2_grpc
from aisle.events.v1 import user_events_pb2 as pb

from services.user_events import wire
from services.user_events.intake import Admitted, Refused
from services.user_events.store import Store
from services.user_events.writer import Outcome
from shared.errors import FieldViolation, InvalidArgumentError

_STORE_REFUSED = "STORE_REFUSED"
_BROKEN = [FieldViolation("", "the database refused this event; it is not stored")]
_FEW = 32
"""Events that are looked at sooner than a thread is woken."""


class UserEventsServicer(user_events_pb2_grpc.UserEventsServicer):
    """Serves aisle.events.v1.UserEvents."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def WriteEvents(self, request: pb.WriteEventsRequest, context: Any) -> pb.WriteEventsResponse:
        """Stores events."""
        if not 1 <= len(request.events) <= wire.MAX_EVENTS:
            raise InvalidArgumentError.of("events", f"must have 1 to {wire.MAX_EVENTS:,} entries")
        if len(request.events) <= _FEW:
            looked_at = self._admitted(request)
        else:
            # On a thread: checking a thousand takes tens of milliseconds, in which others want their histories.
            looked_at = await asyncio.to_thread(self._admitted, request)
        admitted = {at: one for at, one in enumerate(looked_at) if isinstance(one, Admitted)}
        outcomes = dict(zip(admitted, await self._store.write(list(admitted.values())), strict=True))
        stored = [admitted[at] for at, outcome in outcomes.items() if outcome is not Outcome.REFUSED]
        response = pb.WriteEventsResponse(
            accepted=len(stored),
            duplicates=list(outcomes.values()).count(Outcome.DUPLICATE),
            unattributed=sum(one.unattributed for one in stored),
        )
        for at, one in enumerate(looked_at):
            if isinstance(one, Refused):
                response.errors.append(wire.row_error(at, one.violations, one.reason))
            elif outcomes[at] is Outcome.REFUSED:
                response.errors.append(wire.row_error(at, _BROKEN, _STORE_REFUSED))
        return response

    def _admitted(self, request: pb.WriteEventsRequest) -> list[Admitted | Refused]:
        return [self._looked_at(sent) for sent in request.events]

    def _looked_at(self, sent: event_pb2.Event) -> Admitted | Refused:
        try:
            return self._store.admit(wire.event_from_proto(sent))
        except InvalidArgumentError as error:
            return Refused(list(error.violations), error.reason)

    async def GetHistory(self, request: pb.GetHistoryRequest, context: Any) -> pb.GetHistoryResponse:
        """A user's latest events."""
        history = await self._store.history(
            wire.user_id_from_proto(request.user_id),
            wire.types_from_proto(request.types, wire.HISTORY_TYPES),
            wire.limit_from_proto(request.limit),
            wire.since_from_proto(request),
            request.known_version,
        )
        return pb.GetHistoryResponse(
            events=map(wire.past_event_to_proto, history.events), version=history.version, unchanged=history.unchanged
        )

    async def GetItemStats(self, request: pb.GetItemStatsRequest, context: Any) -> pb.GetItemStatsResponse:
        """What was done with some items."""
        stats = await self._store.stats(wire.item_ids_from_proto(request.item_ids), wire.window_from_proto(request))
        return pb.GetItemStatsResponse(stats=map(wire.stats_to_proto, stats))

    async def ListPopularItems(self, request: pb.ListPopularItemsRequest, context: Any) -> pb.ListPopularItemsResponse:
        """The items most was done with."""
        popular = await self._store.popular(wire.window_from_proto(request), wire.limit_from_proto(request.limit))
        return pb.ListPopularItemsResponse(items=wire.scored_to_proto(popular))

    async def GetRelatedItems(self, request: pb.GetRelatedItemsRequest, context: Any) -> pb.GetRelatedItemsResponse:
        """Items that go with others."""
        related = await self._store.related(
            wire.weighted_from_proto(request.items), wire.limit_from_proto(request.limit)
        )
        return pb.GetRelatedItemsResponse(
            items=wire.scored_to_proto(related.items),
            learned_at=wire.time_to_proto(related.learned_at) if related.learned_at is not None else None,
        )

    async def StreamEvents(
        self, request: pb.StreamEventsRequest, context: Any
    ) -> AsyncIterator[pb.StreamEventsResponse]:
        """The log."""
        async for page in self._store.stream(wire.selection_from_proto(request), request.cursor):
            yield pb.StreamEventsResponse(events=map(wire.logged_event_to_proto, page.events), cursor=page.cursor)

    async def GetKnownSince(self, request: pb.GetKnownSinceRequest, context: Any) -> pb.GetKnownSinceResponse:
        """Since when users are known."""
        keys = wire.user_keys_from_proto(request.user_keys)
        since = await self._store.known_since(keys)
        return pb.GetKnownSinceResponse(users=[wire.known_user_to_proto(since.get(key)) for key in keys])

    async def ExportUser(self, request: pb.ExportUserRequest, context: Any) -> AsyncIterator[pb.ExportUserResponse]:
        """All about a user."""
        async for events in self._store.export(wire.user_id_from_proto(request.user_id)):
            yield pb.ExportUserResponse(events=map(wire.logged_event_to_proto, events))

    async def ForgetUser(self, request: pb.ForgetUserRequest, context: Any) -> pb.ForgetUserResponse:
        """Forgets a user."""
        receipt = await self._store.forget(wire.user_id_from_proto(request.user_id))
        return pb.ForgetUserResponse(receipt=wire.receipt_to_proto(receipt))
