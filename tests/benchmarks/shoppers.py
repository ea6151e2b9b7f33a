"""Shoppers with a history, for recommendations to be made from."""

import random
import uuid
from collections.abc import Sequence

import grpc
from aisle.events.v1 import event_pb2, user_events_pb2, user_events_pb2_grpc

from tests.benchmarks.gateway_load import USERS, user

EVENTS = 20
"""Of each."""
_BATCH = 100


async def arrive(address: str, item_ids: Sequence[str]) -> None:
    """Tells the log at `address` that each of them looked at `EVENTS` of the items."""
    draw = random.Random(7)
    seen = [
        event_pb2.Event(
            id=str(uuid.UUID(int=draw.getrandbits(128))),
            type=event_pb2.EVENT_TYPE_VIEW,
            user_id=user(number),
            item_id=draw.choice(item_ids),
        )
        for number in range(USERS)
        for _ in range(EVENTS)
    ]
    async with grpc.aio.insecure_channel(address) as channel:
        stub = user_events_pb2_grpc.UserEventsStub(channel)
        for at in range(0, len(seen), _BATCH):
            await stub.WriteEvents(user_events_pb2.WriteEventsRequest(events=seen[at : at + _BATCH]), timeout=10)
