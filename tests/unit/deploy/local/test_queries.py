"""Searches that suit a catalogue nobody has seen before."""

import pytest

from deploy.local.queries import SHOWCASE, DemoSearch, Profile
from shared.items import Item, Money


def profile(items: list[Item]) -> Profile:
    seen = Profile()
    for item in items:
        seen.add(item)
    return seen


def titled(*titles: str, brand: str = "") -> list[Item]:
    return [Item(id=str(i), title=title, brand=brand) for i, title in enumerate(titles)]


def queries(items: list[Item]) -> list[str]:
    return [search.query for search in profile(items).searches()]


def test_word_pairs_that_titles_repeat_are_searched_for() -> None:
    items = titled("Acme 52 in. ceiling fan", "White ceiling fan with light", "Tall floor lamp", "Brass floor lamp")
    assert queries(items) == ["ceiling fan", "floor lamp"]


def test_brands_domains_and_what_titles_begin_with_are_not() -> None:
    branded = titled(*["A StarTech.com power strip", "One StarTech.com power strip"], brand="Star Corp")
    assert queries(branded) == ["power strip"]
    assert "glacier bay" not in queries(titled("Glacier Bay round mirror", "Glacier Bay shower door"))


def test_full_categories_come_first() -> None:
    items = [Item(id=str(i), title="A thing", category_path=["Shop", "Desk_Lamps"]) for i in range(4)]
    items += [Item(id=f"b{i}", title="A thing", category_path=["Shop", "Rugs"]) for i in range(4)]
    assert queries(items) == ["desk lamps", "rugs"]


def test_one_search_is_filtered_where_prices_are_known() -> None:
    items = [
        Item(id=str(i), title=title, price=Money("USD", price * 1_000_000), in_stock=True)
        for i, (title, price) in enumerate(
            [
                ("tall floor lamp", 10),
                ("small floor lamp", 40),
                ("deep wall tile", 70),
                ("a wall tile", 80),
                ("rug", 90),
            ]
        )
    ]
    searches = profile(items).searches()
    assert searches[0].like_first
    assert searches[1] == DemoSearch(searches[1].query, max_price=100, in_stock=True)
    assert searches[1].title == f"{searches[1].query}  [under 100, in stock]"


def test_chinese_is_searched_for_where_the_shop_is_chinese_and_not_for_one_title() -> None:
    english = titled(*(f"{i} tall floor lamp" for i in range(300)))
    one = titled("无线蓝牙降噪耳机")
    assert "无线蓝牙降噪耳机" not in queries(english + one)
    assert "无线蓝牙降噪耳机" in queries(english[:50] + one)


@pytest.mark.parametrize("title", ["Lampe", "Беспроводные наушники", "ワイヤレス ヘッドホン", "1234"])
def test_a_title_is_searched_for_where_nothing_else_is_found(title: str) -> None:
    assert profile(titled(title, "x")).searches() == [DemoSearch(title, like_first=True)]


def test_a_title_longer_than_anybody_types_is_cut() -> None:
    [query] = queries(titled("x" * 1_000))
    assert query == "x" * 80


def test_a_catalogue_of_no_items_is_no_search() -> None:
    assert queries([]) == []


def test_the_showcase_has_a_filter_a_chinese_query_and_a_similar_items() -> None:
    assert any(search.max_price and search.in_stock for search in SHOWCASE)
    assert any(not search.query.isascii() for search in SHOWCASE)
    assert any(search.like_first for search in SHOWCASE)
