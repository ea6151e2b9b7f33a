"""A short shopping session, with what is recommended before and after it."""

import time
import uuid

from aisle.events.v1 import event_pb2, user_events_pb2, user_events_pb2_grpc
from aisle.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from deploy.local import client, view
from deploy.local.calls import timed

_PAGE = 5
_STEPS = (
    (event_pb2.EVENT_TYPE_CLICK, "clicks"),
    (event_pb2.EVENT_TYPE_VIEW, "views"),
    (event_pb2.EVENT_TYPE_ADD_TO_CART, "puts into the cart"),
    (event_pb2.EVENT_TYPE_PURCHASE, "buys"),
)


def play(gateway: str, user_events: str, query: str) -> None:
    """A shopper nobody knows searches for `query` and buys something. Forgotten at the end, so that nothing stays.

    Raises `LocalError` when a service does not answer.
    """
    user = f"demo-{uuid.uuid4().hex[:12]}"
    with client.channel(gateway) as front, client.channel(user_events) as log_channel:
        shop = gateway_pb2_grpc.GatewayStub(front)
        log = user_events_pb2_grpc.UserEventsStub(log_channel)
        _recommend(shop, user, "recommended to a shopper nobody knows")
        found, _ = timed(shop.Search, gateway_pb2.SearchRequest(query=query, user_id=user, page_size=_PAGE))
        if not found.results:
            return
        view.console.print(f"the shopper searches for [bold]{query}[/bold], and of what is found …")
        write_s = _buy(log, user, query, found)
        view.console.print(f"  what the shopper did is durable after {write_s * 1000:.1f} ms\n", style="dim")
        _recommend(shop, user, f"recommended after that: {query}")
        forgotten, _ = timed(log.ForgetUser, user_events_pb2.ForgetUserRequest(user_id=user))
        receipt = forgotten.receipt
        view.console.print(f"the shopper is forgotten: receipt {receipt.id}, {receipt.events} events removed\n")


def _buy(log: user_events_pb2_grpc.UserEventsStub, user: str, query: str, found: gateway_pb2.SearchResponse) -> float:
    """What the shopper does with the first results; the seconds it took to keep it."""
    events: list[event_pb2.Event] = [_event(user, event_pb2.EVENT_TYPE_SEARCH, found, query=query)]
    for kind, does in _STEPS:
        item = found.results[0].item
        view.console.print(f"  … {does} {item.id}: {item.title}", markup=False, soft_wrap=True)
        events.append(_event(user, kind, found, item_id=item.id))
    started = time.perf_counter()
    timed(log.WriteEvents, user_events_pb2.WriteEventsRequest(events=events))
    return time.perf_counter() - started


def _event(
    user: str,
    kind: event_pb2.EventType.ValueType,
    found: gateway_pb2.SearchResponse,
    *,
    item_id: str = "",
    query: str = "",
) -> event_pb2.Event:
    return event_pb2.Event(
        id=uuid.uuid4().hex,
        type=kind,
        user_id=user,
        item_id=item_id,
        query=query,
        attribution_token="" if query else found.info.attribution_token,
    )


def _recommend(shop: gateway_pb2_grpc.GatewayStub, user: str, title: str) -> None:
    request = gateway_pb2.RecommendRequest(
        context=gateway_pb2.RECOMMEND_CONTEXT_HOME,
        user_id=user,
        page_size=_PAGE,
        exclude_seen=True,
        exclude_purchased=True,
        explain=True,
    )
    answer, waited_ms = timed(shop.Recommend, request)
    view.results(title, answer, waited_ms)
