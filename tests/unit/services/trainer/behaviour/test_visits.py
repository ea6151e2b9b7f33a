from pathlib import Path

import pytest

from services.trainer.behaviour.options import BehaviourOptions
from services.trainer.behaviour.visits import implausible, visit
from tests.support.logged import Row, event, frame, page

OPTIONS = BehaviourOptions(Path(), most_events=40, most_a_minute=60, most_not_shown=0.5)


def reasons(*rows: Row) -> list[str]:
    return implausible(frame(*rows).lazy(), OPTIONS)["visit_reason"].to_list()


def acts(count: int, minutes_between: float = 1.0, **fields: object) -> list[Row]:
    return [event(minute=at * minutes_between, **fields) for at in range(count)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (acts(40), []),
        (acts(41), ["too_many"]),
        # A session is a visit whatever its day, and another one is another visit.
        ([*acts(21, session="s"), *acts(20, session="t")], []),
        # Twenty tabs in a second are a machine's, nineteen a shopper's.
        (acts(20, 1 / 1200), ["too_fast"]),
        (acts(19, 1 / 1200), []),
        (acts(30, 1 / 50), []),
        # Of those that name a page.
        (acts(5, position=None), ["made_up"]),
        (acts(4, position=None), []),
        ([*acts(5, position=None), *acts(5)], []),
        ([*acts(5, position=None), *acts(9, request_id=None)], ["made_up"]),
        ([page(minute=at, position=None) for at in range(9)], []),
    ],
)
def test_a_visit_that_is_no_shopper_s(rows: list[Row], expected: list[str]) -> None:
    assert reasons(*rows) == expected


def test_a_visit_is_a_session_or_a_user_s_day() -> None:
    rows = frame(
        event(), event(minute=60), event(minute=24 * 60), event(user="v"),
        event(session="s"), event(session="s", user=None), event(session="s", minute=24 * 60),
    ).select(visit())["visit"].to_list()  # fmt: skip
    assert rows[0] == rows[1]
    assert len({rows[0], rows[2], rows[3], rows[4]}) == 4
    assert rows[4] == rows[5] == rows[6]
