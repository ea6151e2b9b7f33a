"""What a shopper did, as the service knows it: as it is sent, and as it is kept."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from shared.attribution import Attribution
from shared.items import Money

MICROS_PER_S = 1_000_000
MICROS_PER_HOUR = 3_600 * MICROS_PER_S
MICROS_PER_DAY = 24 * MICROS_PER_HOUR


class EventType(IntEnum):
    """What. The numbers are the contract's, and stored."""

    SEARCH = 1
    IMPRESSION = 2
    VIEW = 3
    CLICK = 4
    ADD_TO_CART = 5
    REMOVE_FROM_CART = 6
    PURCHASE = 7
    RETURN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SentEvent:
    """An event as a caller sends it, not looked at yet. Empty where nothing was said."""

    id: str
    type: int
    user_id: str = ""
    session_id: str = ""
    occurred_at: int | None = None
    """Microseconds since 1970."""
    item_id: str = ""
    item_ids: Sequence[str] = ()
    first_position: int = 0
    query: str = ""
    quantity: int = 0
    price: Money | None = None
    attribution_token: str = ""
    sampled_one_in: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as it is kept."""

    id: str
    type: EventType
    user_key: bytes | None
    session_key: bytes | None
    occurred_at: int
    """Microseconds since 1970, by the shop's clock."""
    arrived_at: int
    """Microseconds since 1970, by the service's."""
    item_id: str | None = None
    item_ids: Sequence[str] = ()
    first_position: int = 0
    query: str | None = None
    quantity: int = 0
    price: Money | None = None
    sampled_one_in: int = 1
    properties: Mapping[str, str] = field(default_factory=dict)
    attribution: Attribution | None = None

    @property
    def digest(self) -> bytes:
        """What the event is known by, 16 bytes: of one length, whatever the id."""
        return hashlib.blake2b(self.id.encode(), digest_size=16).digest()

    @property
    def hour(self) -> int:
        """Hours from 1970 to when it occurred."""
        return self.occurred_at // MICROS_PER_HOUR

    def shown_items(self) -> Sequence[str]:
        """The items that it is about."""
        if self.type is EventType.IMPRESSION:
            return self.item_ids
        return (self.item_id,) if self.item_id is not None else ()


def micros(at: datetime) -> int:
    """Microseconds since 1970. `at` has a time zone."""
    return round(at.timestamp() * MICROS_PER_S)
