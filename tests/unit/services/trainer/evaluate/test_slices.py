from services.trainer.evaluate.slices import slices

COUNT = 12


def keys(prefix: str) -> list[str]:
    return [f"{prefix}{at}" for at in range(COUNT)]


def test_queries_are_grouped_by_number_of_words() -> None:
    queries = dict.fromkeys(keys("a"), "desk") | dict.fromkeys(keys("b"), "big oak desk with drawers")
    found = slices(queries, {}, {}, {})
    assert found == {"length": {"1 word": keys("a"), "5 words or more": keys("b")}}


def test_a_category_is_that_of_most_relevant_items() -> None:
    relevant = {key: ["d1", "d2", "l1"] for key in keys("a")} | {key: ["l1"] for key in keys("b")}
    categories = {"d1": "desks", "d2": "desks", "l1": "lamps", "x": ""}
    assert slices({}, relevant, categories, {})["category"] == {"desks": keys("a"), "lamps": keys("b")}


def test_head_is_half_of_what_was_judged() -> None:
    popularity = {"top": 50, "rare": 30, "rarer": 20}
    relevant = {key: ["top", "rare"] for key in keys("a")}
    relevant |= {key: ["rare"] for key in keys("b")} | {key: ["new"] for key in keys("c")}
    found = slices({}, relevant, {}, popularity)["popularity"]
    assert found == {"head": keys("a"), "tail": keys("b"), "not in training": keys("c")}


def test_queries_of_an_earlier_set_are_told_from_new_ones() -> None:
    queries = dict.fromkeys(keys("a"), "desk") | dict.fromkeys(keys("b"), "lamp")
    assert slices(queries, {}, {}, {}, before=[*keys("b"), "gone"])["age"] == {"old": keys("b"), "new": keys("a")}


def test_small_and_single_slices_say_nothing() -> None:
    queries = dict.fromkeys(keys("a"), "desk") | {"few": "oak desk"}
    assert slices(queries, {}, {}, {}) == {}
