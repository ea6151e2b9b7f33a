"""Click-through by position: what known shoppers were shown and clicked, told apart by where on the list it stood."""

from services.user_events.events import Event, EventType
from shared.telemetry import metrics

_EXACT = 10
"""Positions told one by one: most clicks fall there, and each is a series."""
_RANGES = ((20, "10-19"), (50, "20-49"))
_BEYOND = "50+"


def count(event: Event) -> None:
    """Counts a stored event, where it is about places on a list.

    Only of shoppers who are known, as impressions are noted of nobody else; a click's place is that of its
    attribution token, and an item that was not on the token's page has none.
    """
    told = event.attribution
    if told is None or event.user_key is None:
        return
    if event.type is EventType.IMPRESSION:
        for at in range(event.first_position, event.first_position + len(event.item_ids)):
            metrics.ITEMS_SHOWN.labels(told.surface, bucket(at)).inc(event.sampled_one_in)
    elif event.type is EventType.CLICK and told.position is not None:
        metrics.ITEMS_CLICKED.labels(told.surface, bucket(told.position)).inc()


def bucket(position: int) -> str:
    """The label of a position from 0: itself, or the range it lies in."""
    if position < _EXACT:
        return str(position)
    return next((label for end, label in _RANGES if position < end), _BEYOND)
