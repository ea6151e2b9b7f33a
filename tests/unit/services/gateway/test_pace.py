import pytest

from services.gateway.pace import Pace

GOOD_S = 0.5


def served(pace: Pace, server_s: float, rounds: int, began: float = 0.0) -> float:
    """Rounds of as many requests as there are places, by a server that takes `server_s` for each, one after another;
    returns when it has."""
    for _ in range(rounds):
        places = pace.places
        for at in range(places):
            pace.answered(began, began + server_s * (at + 1), GOOD_S, full=True)
        began += server_s * places
    return began


def test_it_begins_with_the_most_and_keeps_it_while_answers_come_in_time() -> None:
    pace = Pace(4, 64)
    served(pace, 0.001, 100)
    assert pace.places == 64


def test_it_finds_how_many_are_answered_in_good_time() -> None:
    pace = Pace(4, 64)
    served(pace, 0.02, 100)
    # The server answers 25 in half a second.
    assert 20 <= pace.places <= 26


def test_it_comes_back_when_the_server_is_faster() -> None:
    pace = Pace(4, 64)
    until = served(pace, 0.02, 50)
    served(pace, 0.001, 100, until)
    assert pace.places == 64


def test_it_never_goes_below_the_least() -> None:
    pace = Pace(4, 64)
    served(pace, 10.0, 100)
    assert pace.places == 4


def test_what_was_under_way_at_a_decrease_counts_once() -> None:
    pace = Pace(1, 100)
    for at in range(100):
        pace.answered(0.0, 1.0 + at / 1000, GOOD_S, full=True)
    assert pace.places == 90


@pytest.mark.parametrize(("full", "places"), [(True, 10), (False, 9)])
def test_more_are_let_in_only_where_all_places_are_taken(full: bool, places: int) -> None:
    pace = Pace(1, 10)
    pace.answered(0.0, 1.0, GOOD_S, full=True)
    for _ in range(20):
        pace.answered(2.0, 2.1, GOOD_S, full=full)
    assert pace.places == places
