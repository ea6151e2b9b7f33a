"""Click-through by position."""

import pytest
from prometheus_client import REGISTRY

from services.user_events import positions
from services.user_events.events import Event, EventType
from shared.attribution import Attribution

SURFACE = "BASKET"


def shown(position: str, name: str = "shown") -> float:
    labels = {"surface": SURFACE, "position": position}
    return REGISTRY.get_sample_value(f"aisle_events_items_{name}_total", labels) or 0.0


def event(kind: EventType, *, position: int | None = None, **fields: object) -> Event:
    given: dict[str, object] = {
        "user_key": b"u",
        "attribution": Attribution(surface=SURFACE, position=position),
        **fields,
    }
    return Event(id="e", type=kind, session_key=None, occurred_at=0, arrived_at=0, **given)  # type: ignore[arg-type]


def test_a_page_counts_each_of_its_places_for_all_it_stands_for() -> None:
    before = shown("8"), shown("9"), shown("10-19")
    positions.count(event(EventType.IMPRESSION, item_ids=("a", "b", "c", "d"), first_position=8, sampled_one_in=10))
    assert (shown("8"), shown("9"), shown("10-19")) == (before[0] + 10, before[1] + 10, before[2] + 20)


def test_a_click_counts_where_the_item_stood() -> None:
    before = shown("3", "clicked")
    positions.count(event(EventType.CLICK, position=3))
    assert shown("3", "clicked") == before + 1


@pytest.mark.parametrize(
    "uncounted",
    [
        event(EventType.CLICK, position=3, user_key=None),
        event(EventType.CLICK, position=None),
        event(EventType.CLICK, attribution=None),
        event(EventType.PURCHASE, position=3),
    ],
)
def test_nothing_else_counts(uncounted: Event) -> None:
    before = shown("3"), shown("3", "clicked")
    positions.count(uncounted)
    assert (shown("3"), shown("3", "clicked")) == before


@pytest.mark.parametrize(
    ("position", "label"), [(0, "0"), (9, "9"), (10, "10-19"), (19, "10-19"), (20, "20-49"), (50, "50+"), (999, "50+")]
)
def test_positions_far_down_share_a_series(position: int, label: str) -> None:
    assert positions.bucket(position) == label
