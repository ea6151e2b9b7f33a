"""The rules an event must keep, each named by its field; everything that a database of either kind could choke on."""

from collections.abc import Callable, Sequence

from services.user_events.events import MICROS_PER_DAY, EventType, SentEvent
from shared.errors import FieldViolation
from shared.items import MAX_ID_BYTES, MICROS_PER_UNIT, Money

MAX_EVENT_ID_CHARS = 64
MAX_IDENTITY_CHARS = 256
MAX_SHOWN_ITEMS = 200
MAX_QUERY_CHARS = 500
MAX_PROPERTIES = 16
MAX_NAME_CHARS = 64
MAX_VALUE_CHARS = 256
MAX_NUMBER = 1_000_000
"""Of pieces, positions and sampling: beyond any that is meant."""
MAX_PRICE = 1_000_000_000 * MICROS_PER_UNIT
"""In millionths of the currency's unit."""
MAX_AHEAD = MICROS_PER_DAY
"""Microseconds that the shop's clock may run before the service's: a time zone taken for another."""
EARLIEST = 946_684_800 * 1_000_000
"""2000-01-01, in microseconds since 1970: what is older is a clock that was never set."""

WITH_ITEM = frozenset(EventType) - {EventType.SEARCH, EventType.IMPRESSION}
WITH_PIECES = frozenset(
    {EventType.ADD_TO_CART, EventType.REMOVE_FROM_CART, EventType.PURCHASE, EventType.RETURN},
)

_KNOWN_TYPES = frozenset(map(int, EventType))

Check = Callable[[bool, str, str], None]


def violations(event: SentEvent, now: int) -> list[FieldViolation]:
    """Every rule `event` breaks; empty when it can be stored. `now` is in microseconds since 1970."""
    found: list[FieldViolation] = []

    def check(ok: bool, field: str, rule: str) -> None:
        if not ok:
            found.append(FieldViolation(field, rule))

    check(0 < len(event.id) <= MAX_EVENT_ID_CHARS, "id", f"must be 1 to {MAX_EVENT_ID_CHARS} characters")
    _check_who(check, event)
    if event.occurred_at is not None:
        check(
            EARLIEST <= event.occurred_at <= now + MAX_AHEAD,
            "occurred_at",
            "must not be before 2000, nor more than a day from now",
        )
    if event.type in _KNOWN_TYPES:
        _check_what(check, event, EventType(event.type))
    else:
        check(False, "type", "must be given, and one that this version knows")
    check(event.sampled_one_in <= MAX_NUMBER, "sampled_one_in", f"must be at most {MAX_NUMBER:,}")
    _check_properties(check, event)
    _check_text(check, event)
    return found


def _check_who(check: Check, event: SentEvent) -> None:
    check(bool(event.user_id or event.session_id), "user_id", "must not be empty, unless session_id is given")
    for field, identity in (("user_id", event.user_id), ("session_id", event.session_id)):
        check(len(identity) <= MAX_IDENTITY_CHARS, field, f"must be at most {MAX_IDENTITY_CHARS} characters")


def _check_what(check: Check, event: SentEvent, kind: EventType) -> None:
    if kind is EventType.SEARCH:
        check(bool(event.query.strip()), "query", "must not be blank: a search has one")
        check(len(event.query) <= MAX_QUERY_CHARS, "query", f"must be at most {MAX_QUERY_CHARS} characters")
    else:
        check(not event.query, "query", "must be empty: only a search has one")
    if kind is EventType.IMPRESSION:
        check(0 < len(event.item_ids) <= MAX_SHOWN_ITEMS, "item_ids", f"must have 1 to {MAX_SHOWN_ITEMS} entries")
        for at, item_id in enumerate(event.item_ids[:MAX_SHOWN_ITEMS]):
            _check_item(check, f"item_ids[{at}]", item_id)
    else:
        check(not event.item_ids, "item_ids", "must be empty: only an impression has them")
    if kind in WITH_ITEM:
        _check_item(check, "item_id", event.item_id)
    else:
        check(not event.item_id, "item_id", "must be empty for this type")
    check(event.first_position <= MAX_NUMBER, "first_position", f"must be at most {MAX_NUMBER:,}")
    _check_pieces(check, event, kind)


def _check_item(check: Check, field: str, item_id: str) -> None:
    check(bool(item_id.strip()), field, "must not be empty")
    check(len(item_id.encode()) <= MAX_ID_BYTES, field, f"must be at most {MAX_ID_BYTES} bytes")


def _check_pieces(check: Check, event: SentEvent, kind: EventType) -> None:
    if kind not in WITH_PIECES:
        check(not event.quantity, "quantity", "must be 0: only a cart or purchase has one")
        check(event.price is None, "price", "must be absent: only a cart or purchase has one")
    check(event.quantity <= MAX_NUMBER, "quantity", f"must be at most {MAX_NUMBER:,}")
    if event.price is not None:
        _check_price(check, event.price)


def _check_price(check: Check, price: Money) -> None:
    code = price.currency_code
    check(
        len(code) == 3 and code.isascii() and code.isalpha() and code.isupper(),
        "price.currency_code",
        "must be an ISO 4217 code",
    )
    check(0 <= price.micros <= MAX_PRICE, "price", "must not be negative, and at most a thousand million")


def _check_properties(check: Check, event: SentEvent) -> None:
    properties = event.properties
    check(len(properties) <= MAX_PROPERTIES, "properties", f"must have at most {MAX_PROPERTIES} entries")
    check(
        all(0 < len(name) <= MAX_NAME_CHARS for name in properties),
        "properties",
        f"names must be 1 to {MAX_NAME_CHARS} characters",
    )
    check(
        all(len(value) <= MAX_VALUE_CHARS for value in properties.values()),
        "properties",
        f"values must be at most {MAX_VALUE_CHARS} characters",
    )


def _check_text(check: Check, event: SentEvent) -> None:
    texts: dict[str, Sequence[str]] = {
        "id": (event.id,),
        "item_id": (event.item_id,),
        "item_ids": event.item_ids,
        "query": (event.query,),
        "properties": (*event.properties, *event.properties.values()),
    }
    for field, held in texts.items():
        # PostgreSQL cannot store it.
        check(not any("\0" in text for text in held), field, "must not hold a NUL character")
