import re
from collections import Counter

import pytest

from services.trainer.pretrain.queries import QueryMaker
from shared.items import Item

COLOURS = ("red", "blue", "green", "black")


def shop(*more: Item) -> QueryMaker:
    items = [
        Item(
            id=f"{colour}-{at}",
            title=f"Garden hose in {colour}, X{colour}{at}",
            brand="Flexon",
            category_path=("Yard", "Hoses"),
        )
        for colour in COLOURS
        for at in range(5)
    ]
    return QueryMaker([*items, *more])


def test_a_query_is_a_few_of_the_items_words_in_their_order() -> None:
    own = ["flexon", "garden", "hose", "in", "red", "xred0", "hoses"]
    for seed in range(20):
        for query in shop().queries("red-0", 3, seed):
            words = query.split()
            assert 2 <= len(words) <= 4
            assert words == [word for word in own if word in words]


def test_queries_differ_and_are_the_same_for_a_seed() -> None:
    maker = shop()
    found = maker.queries("red-0", 5, 0)
    assert len(set(found)) == len(found) > 1
    assert found == maker.queries("red-0", 5, 0) == shop().queries("red-0", 5, 0)
    assert found != maker.queries("red-0", 5, 1)


def test_words_that_tell_items_apart_are_drawn_more_often_and_model_numbers_never() -> None:
    maker = shop()
    drawn = Counter(word for seed in range(300) for query in maker.queries("red-0", 1, seed) for word in query.split())
    assert drawn["red"] > 1.5 * drawn["garden"], "five of twenty items are red, all are for the garden"
    assert drawn["xred0"] == 0


def test_an_item_of_rare_words_is_asked_for_by_them() -> None:
    assert set(shop(Item(id="odd", title="Zither plectrum")).queries("odd", 4, 0)) == {"zither plectrum"}


@pytest.mark.parametrize("title", ["Hose", "花园软管", "!!"])
def test_an_item_of_less_than_two_words_has_no_query(title: str) -> None:
    assert shop(Item(id="short", title=title)).queries("short", 3, 0) == []


def test_what_names_a_thing_stays_together() -> None:
    maker = QueryMaker([Item(id="one", title="3/4 in. 1-Handle Faucet, SC-141")])
    words = {word for query in maker.queries("one", 50, 0) for word in query.split()}
    assert words == {"3/4", "in", "1-handle", "faucet", "sc-141"}
    assert not any(re.search(r"[.,]$", word) for word in words)
