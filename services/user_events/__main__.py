"""`python -m services.user_events`."""

import contextlib
from collections.abc import Sequence

from aisle.events.v1 import user_events_pb2, user_events_pb2_grpc

from services.user_events.background import Background
from services.user_events.servicer import UserEventsServicer
from services.user_events.settings import UserEventsSettings
from services.user_events.store import Store
from shared.rpc.server import ServedService, main

_NAME = user_events_pb2.DESCRIPTOR.services_by_name["UserEvents"].full_name


async def build(settings: UserEventsSettings, stack: contextlib.AsyncExitStack) -> Sequence[ServedService]:
    """Opens the store and serves it."""
    store = await Store.open(settings)
    stack.push_async_callback(store.close)
    background = Background(store.database, settings)
    stack.push_async_callback(background.close)
    background.start()
    servicer = UserEventsServicer(store)
    return [
        ServedService(
            name=_NAME,
            register=lambda server: user_events_pb2_grpc.add_UserEventsServicer_to_server(servicer, server),
            check=store.check,
            shared_fate=True,
        )
    ]


if __name__ == "__main__":
    main("user_events", UserEventsSettings, build)
