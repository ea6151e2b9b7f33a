"""aisle.events.v1 ↔ the domain. Refuses what the domain's types cannot express."""

from collections.abc import Collection, Iterable, Sequence

from aisle.common.v1 import row_error_pb2
from aisle.events.v1 import event_pb2
from aisle.events.v1 import user_events_pb2 as pb
from google.protobuf import duration_pb2, timestamp_pb2

from services.user_events.events import MICROS_PER_S, Event, EventType, SentEvent
from services.user_events.history import Receipt
from services.user_events.identity import KEY_BYTES
from services.user_events.popularity import ItemStats
from services.user_events.stream import Selection
from services.user_events.validation import MAX_IDENTITY_CHARS
from shared.attribution import Attribution
from shared.errors import FieldViolation, InvalidArgumentError
from shared.rpc.items import money_from_proto, money_to_proto

MAX_EVENTS = 1_000
MAX_ITEMS = 1_000
MAX_LIMIT = 1_000
MAX_USER_KEYS = 1_000
DEFAULT_LIMIT = 100
MAX_RELATED_TO = 200
MAX_WINDOW_HOURS = 400 * 24
DEFAULT_WINDOW_HOURS = 30 * 24
SECONDS_AN_HOUR = 3_600

HISTORY_TYPES = frozenset(EventType) - {EventType.IMPRESSION}
_NANOS_PER_MICRO = 1_000


def event_from_proto(event: event_pb2.Event) -> SentEvent:
    """Raises `InvalidArgumentError` for a time or a price that is none."""
    return SentEvent(
        id=event.id,
        type=event.type,
        user_id=event.user_id,
        session_id=event.session_id,
        occurred_at=time_from_proto(event.occurred_at, "occurred_at") if event.HasField("occurred_at") else None,
        item_id=event.item_id,
        item_ids=event.item_ids,
        first_position=event.first_position,
        query=event.query,
        quantity=event.quantity,
        price=money_from_proto(event.price, "price") if event.HasField("price") else None,
        attribution_token=event.attribution_token,
        sampled_one_in=event.sampled_one_in,
        properties=event.properties,
    )


def row_error(position: int, broken: Sequence[FieldViolation], reason: str) -> row_error_pb2.RowError:
    """Why the event at `position` was refused: the first rule it breaks gives the field, the message names all."""
    return row_error_pb2.RowError(
        row=position,
        field=broken[0].field,
        reason=reason,
        message="; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in broken),
    )


def user_id_from_proto(user_id: str) -> str:
    """The id that a request about a user names."""
    if not 0 < len(user_id) <= MAX_IDENTITY_CHARS:
        raise InvalidArgumentError.of("user_id", f"must be 1 to {MAX_IDENTITY_CHARS} characters")
    return user_id


def user_keys_from_proto(user_keys: Sequence[bytes]) -> list[bytes]:
    """The users that a reader of the log asks about."""
    if not 1 <= len(user_keys) <= MAX_USER_KEYS:
        raise InvalidArgumentError.of("user_keys", f"must have 1 to {MAX_USER_KEYS:,} entries")
    for at, key in enumerate(user_keys):
        if len(key) != KEY_BYTES:
            raise InvalidArgumentError.of(
                f"user_keys[{at}]", f"must be {KEY_BYTES} bytes, as an event of the log has it"
            )
    return list(user_keys)


def types_from_proto(types: Iterable[int], default: Collection[EventType]) -> Collection[EventType]:
    """The types that a request names."""
    named = set(types)
    if named - set(EventType):
        raise InvalidArgumentError.of("types", "must hold types that this version knows")
    return {EventType(kind) for kind in named} or default


def limit_from_proto(limit: int) -> int:
    """How many of something a request asks for."""
    if limit > MAX_LIMIT:
        raise InvalidArgumentError.of("limit", f"must be 1 to {MAX_LIMIT:,}, or 0 for {DEFAULT_LIMIT}")
    return limit or DEFAULT_LIMIT


def time_from_proto(at: timestamp_pb2.Timestamp, field: str) -> int:
    """Microseconds since 1970."""
    if not 0 <= at.nanos < 1_000_000_000 or not _YEAR_1 <= at.seconds <= _YEAR_9999:
        raise InvalidArgumentError.of(field, "must lie between the years 1 and 9999")
    return at.seconds * MICROS_PER_S + at.nanos // _NANOS_PER_MICRO


_YEAR_1, _YEAR_9999 = -62_135_596_800, 253_402_300_799


def since_from_proto(request: pb.GetHistoryRequest) -> int | None:
    """The time before which nothing is asked for."""
    return time_from_proto(request.since, "since") if request.HasField("since") else None


def selection_from_proto(request: pb.StreamEventsRequest) -> Selection:
    """Which part of the log."""
    return Selection(
        since=time_from_proto(request.since, "since") if request.HasField("since") else None,
        before=time_from_proto(request.before, "before") if request.HasField("before") else None,
        types=types_from_proto(request.types, ()),
    )


def window_from_proto(request: pb.GetItemStatsRequest | pb.ListPopularItemsRequest) -> int:
    """How far back, in hours."""
    if not request.HasField("window"):
        return DEFAULT_WINDOW_HOURS
    window: duration_pb2.Duration = request.window
    hours = -(-window.seconds // SECONDS_AN_HOUR) + (window.nanos > 0 and not window.seconds % SECONDS_AN_HOUR)
    if not 1 <= hours <= MAX_WINDOW_HOURS:
        raise InvalidArgumentError.of("window", "must be more than nothing and at most 400 days")
    return hours


def item_ids_from_proto(item_ids: Sequence[str]) -> list[str]:
    """The items of a request for their numbers."""
    if not 1 <= len(item_ids) <= MAX_ITEMS:
        raise InvalidArgumentError.of("item_ids", f"must have 1 to {MAX_ITEMS:,} entries")
    for at, item_id in enumerate(item_ids):
        _check_item(f"item_ids[{at}]", item_id)
    return list(item_ids)


def weighted_from_proto(items: Sequence[pb.WeightedItem]) -> dict[str, float]:
    """What to find relations of, and how much each counts; one named twice counts for both."""
    if not 1 <= len(items) <= MAX_RELATED_TO:
        raise InvalidArgumentError.of("items", f"must have 1 to {MAX_RELATED_TO} entries")
    found: dict[str, float] = {}
    for at, item in enumerate(items):
        _check_item(f"items[{at}].item_id", item.item_id)
        if not 0 < item.weight < float("inf"):
            raise InvalidArgumentError.of(f"items[{at}].weight", "must be a number above 0")
        found[item.item_id] = found.get(item.item_id, 0.0) + item.weight
    return found


def _check_item(field: str, item_id: str) -> None:
    if not item_id or "\0" in item_id:
        raise InvalidArgumentError.of(field, "must not be empty, nor hold a NUL character")


def past_event_to_proto(event: Event) -> pb.PastEvent:
    """The wire's form of an event that is kept."""
    return pb.PastEvent(
        id=event.id,
        type=event_pb2.EventType.ValueType(event.type),
        occurred_at=time_to_proto(event.occurred_at),
        item_id=event.item_id or "",
        query=event.query or "",
        quantity=event.quantity,
        attribution=_attribution_to_proto(event.attribution) if event.attribution is not None else None,
        price=money_to_proto(event.price) if event.price is not None else None,
    )


def logged_event_to_proto(event: Event) -> pb.LoggedEvent:
    """The wire's form of an event with all that is kept of it."""
    return pb.LoggedEvent(
        event=past_event_to_proto(event),
        user_key=event.user_key or b"",
        session_key=event.session_key or b"",
        item_ids=event.item_ids,
        first_position=event.first_position,
        sampled_one_in=event.sampled_one_in,
        properties=event.properties,
        arrived_at=time_to_proto(event.arrived_at),
    )


def stats_to_proto(stats: ItemStats) -> pb.ItemStats:
    """The wire's form of what was done with an item."""
    return pb.ItemStats(
        item_id=stats.item_id,
        impressions=stats.impressions,
        views=stats.views,
        clicks=stats.clicks,
        carts=stats.carts,
        purchases=stats.purchases,
        click_through_rate=stats.click_through_rate,
    )


def scored_to_proto(scored: Iterable[tuple[str, float]]) -> list[pb.ScoredItem]:
    """The wire's form of items with numbers."""
    return [pb.ScoredItem(item_id=item_id, score=score) for item_id, score in scored]


def receipt_to_proto(receipt: Receipt) -> pb.ForgetReceipt:
    """The wire's form of a receipt."""
    return pb.ForgetReceipt(id=receipt.id, forgotten_at=time_to_proto(receipt.forgotten_at), events=receipt.events)


def known_user_to_proto(since: int | None) -> pb.KnownUser:
    """The wire's form of since when a user is known; `None`: not at all."""
    return pb.KnownUser(since=time_to_proto(since) if since is not None else None)


def time_to_proto(at: int) -> timestamp_pb2.Timestamp:
    """From microseconds since 1970."""
    seconds, rest = divmod(at, MICROS_PER_S)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=rest * _NANOS_PER_MICRO)


def _attribution_to_proto(attribution: Attribution) -> event_pb2.Attribution:
    return event_pb2.Attribution(
        request_id=attribution.request_id,
        surface=attribution.surface,
        query=attribution.query,
        position=attribution.position,
        experiment_arm=attribution.experiment_arm,
        encoder_version=attribution.encoder_version,
        index_version=attribution.index_version,
        reranker_version=attribution.reranker_version,
        generation=attribution.generation,
        candidate_count=attribution.candidate_count,
    )
