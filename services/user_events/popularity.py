"""What counts how much: popularity with time decay, and click-through rates that few impressions cannot swing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.user_events.events import EventType

WEIGHTS: Mapping[EventType, float] = {
    EventType.VIEW: 1.0,
    EventType.CLICK: 2.0,
    EventType.ADD_TO_CART: 3.0,
    EventType.REMOVE_FROM_CART: -1.0,
    EventType.PURCHASE: 4.0,
    EventType.RETURN: -4.0,
}
"""What an event says of its item: Click, RecommendationClick, AddShopCart, RemoveShopCart and Purchase of Microsoft's
Recommendations API weighed 1, 2, 3, −1 and 4; a return takes back its purchase. Impressions say what was shown, not
what was liked."""

PRIOR_IMPRESSIONS = 20
HOURS_A_DAY = 24


@dataclass(frozen=True, slots=True)
class ItemStats:
    """What was done with an item."""

    item_id: str
    impressions: int = 0
    views: int = 0
    clicks: int = 0
    carts: int = 0
    purchases: int = 0
    click_through_rate: float = 0.0


def decayed_weights(window_hours: int, half_life_days: float) -> Iterator[tuple[int, int, float]]:
    """(type, age in whole days, what one event of that type and age counts), for all ages within `window_hours`. An
    event may be a day ahead of the clock, and counts as one of now."""
    for kind, weight in WEIGHTS.items():
        for age in range(-1, window_hours // HOURS_A_DAY + 1):
            yield int(kind), age, weight * 0.5 ** (max(age, 0) / half_life_days)


def click_through_rate(clicks: int, impressions: int, average: float) -> float:
    """Clicks by impressions, as if the item had also had `PRIOR_IMPRESSIONS` with the shop's `average` rate. 0 to 1:
    clicks without impressions, of a shop that does not send them, say nothing above that."""
    return min(1.0, (clicks + PRIOR_IMPRESSIONS * average) / (impressions + PRIOR_IMPRESSIONS))
