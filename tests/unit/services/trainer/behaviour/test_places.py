from collections import Counter
from pathlib import Path

import polars as pl

from services.trainer.behaviour import by_query, places
from services.trainer.behaviour.options import BehaviourOptions
from services.trainer.behaviour.places import PLACES
from services.trainer.behaviour.visits import implausible
from tests.support.logged import Row, archive, event, frame, page


def counted(tmp_path: Path, *rows: Row, least_users: int = 1) -> tuple[pl.DataFrame, Counter[str]]:
    """What is counted of `rows`, and what became of the others."""
    events = frame(*rows).lazy()
    options = BehaviourOptions(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir(parents=True)
    files = archive(tmp_path / "log", *rows, file_events=7).files
    made = by_query.sort(files, len(rows), implausible(events, options), by_query.undone(events), scratch)
    assert made.events == len(rows)
    found = [places.count(pl.read_parquet(file), least_users, made.dropped) for file in made.files]
    return pl.concat(found).sort("key", "item_id", "place"), +made.dropped


def shown(table: pl.DataFrame) -> list[tuple[str, int, int, int, float]]:
    return table.select("item_id", "place", "shown", "taken", "weight").rows()


def test_a_page_shows_its_items_and_the_strongest_act_counts(tmp_path: Path) -> None:
    rows = [page(), event(), event("ADD_TO_CART"), page(request_id="r2", first_position=10), event("VIEW")]
    table, dropped = counted(tmp_path, *rows)
    assert shown(table) == [("a", 0, 1, 1, 3.0), ("a", 10, 1, 0, 0.0), ("b", 1, 1, 0, 0.0), ("b", 11, 1, 0, 0.0)]
    assert not dropped


def test_what_is_told_twice_counts_once(tmp_path: Path) -> None:
    again = page(item_ids=["a", "c"], minute=1)
    table, dropped = counted(tmp_path, page(), page(), event(), event(minute=2), again)
    assert shown(table) == [("a", 0, 1, 1, 1.0), ("b", 1, 1, 0, 0.0), ("c", 1, 1, 0, 0.0)]
    assert dropped == {"repeated": 2}


def test_each_event_that_says_nothing_has_its_reason(tmp_path: Path) -> None:
    rows = [
        page(),
        event(request_id=None),
        page(surface="HOME", query=None),
        event(surface="AFTER_SEARCH"),
        event(position=None),
        event(request_id="another"),
    ]
    table, dropped = counted(tmp_path, *rows)
    assert shown(table) == [("a", 0, 1, 0, 0.0), ("b", 1, 1, 0, 0.0)]
    assert dropped == {"unattributed": 1, "no_search": 2, "not_shown": 1, "no_page": 1}


def test_what_is_taken_back_was_not_taken(tmp_path: Path) -> None:
    rows = [
        page(),
        event(),
        event("PURCHASE", minute=1),
        event("ADD_TO_CART", item_id="b", minute=1),
        event("REMOVE_FROM_CART", item_id="b", minute=2, request_id=None),
        event("ADD_TO_CART", item_id="b", minute=3, position=1),
        event("RETURN", minute=90, request_id=None),
        # Another's.
        event("REMOVE_FROM_CART", item_id="b", minute=9, user="v"),
    ]
    table, dropped = counted(tmp_path, *rows)
    assert shown(table) == [("a", 0, 1, 1, 1.0), ("b", 1, 1, 1, 3.0)]
    assert dropped == {"undone": 2}


def test_a_query_of_few_users_is_left_out(tmp_path: Path) -> None:
    rows = [
        *[page(user=name, request_id=name) for name in "xyz"],
        *[page(user=name, request_id=f"b{name}", query="Léa's bed") for name in "xy"],
        # Who knows whether these are two people?
        *[page(user=None, session=name, request_id=f"c{name}", query="lea s bed") for name in "xy"],
        *[page(user=None, session=name, request_id=f"d{name}", query="rug") for name in "xyzv"],
    ]
    table, dropped = counted(tmp_path, *rows, least_users=3)
    assert table["key"].unique().to_list() == ["lamp"]
    assert dropped == {"rare_query": 8}


def test_spellings_of_a_query_are_one(tmp_path: Path) -> None:
    table, _ = counted(tmp_path, page(query="Floor  Lamp"), page(query="floor-lamp", request_id="r2"))
    assert table.select("key", "query", "item_id", "shown").rows() == [
        ("floor lamp", "Floor  Lamp", "a", 2),
        ("floor lamp", "Floor  Lamp", "b", 2),
    ]


def test_two_searches_of_one_request_are_two(tmp_path: Path) -> None:
    rows = [page(), page(query="rug"), event(query="rug"), event(query="bed")]
    table, dropped = counted(tmp_path, *rows)
    assert table.filter(pl.col("item_id") == "a").select("key", "taken").rows() == [("lamp", 0), ("rug", 1)]
    assert dropped == {"no_page": 1}


def test_what_is_far_down_is_one_place(tmp_path: Path) -> None:
    table, _ = counted(tmp_path, page(first_position=PLACES - 1), page(first_position=400, request_id="r2"))
    assert shown(table) == [("a", PLACES - 1, 2, 0, 0.0), ("b", PLACES - 1, 2, 0, 0.0)]


def test_a_machine_s_events_are_dropped(tmp_path: Path) -> None:
    rows = [page(request_id=str(at), user="robot") for at in range(30)]
    table, dropped = counted(tmp_path, page(), *rows)
    assert table["shown"].to_list() == [1, 1]
    assert dropped == {"too_fast": 30}
