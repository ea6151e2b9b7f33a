import re
from collections import Counter, defaultdict
from itertools import islice

import pytest

from shared.catalogue.generator import generate
from shared.catalogue.generator.vocabulary import ProductType, product_types
from shared.items import MICROS_PER_UNIT, Item, violations

PLACEHOLDERS = re.compile(r"lorem|ipsum|\btodo\b|\btbd\b|xxx|[{}<>]|\bNone\b|\bnan\b", re.IGNORECASE)
UNTIDY = re.compile(r"\s[,.]|\s{2}|,,|\.\.|^\W|,$")
CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return list(generate())


@pytest.fixture(scope="module")
def types() -> list[ProductType]:
    return list(product_types())


def test_same_seed_same_catalogue(items: list[Item]) -> None:
    assert list(generate()) == items
    assert list(generate(50, seed=8)) != items[:50]


def test_a_shorter_catalogue_is_the_start_of_a_longer_one(items: list[Item]) -> None:
    assert list(generate(100)) == items[:100]


def test_counts(items: list[Item]) -> None:
    assert len(items) == 4_000
    assert len({item.id for item in items}) == 4_000
    assert len({item.category_path[0] for item in items}) >= 20
    assert len({item.category_path for item in items}) >= 25
    assert all(2 <= len(item.category_path) <= 3 for item in items)


def test_a_small_catalogue_has_something_of_every_department(items: list[Item]) -> None:
    departments = {item.category_path[0] for item in items}
    assert len({item.category_path[0] for item in islice(items, 400)}) >= len(departments) - 2


def test_every_item_can_be_stored(items: list[Item]) -> None:
    assert [found for item in items if (found := violations(item))] == []


def test_every_field_is_filled(items: list[Item]) -> None:
    for item in items:
        assert item.description, item.id
        assert item.brand, item.id
        assert item.price is not None, item.id
        assert item.in_stock is not None, item.id
        assert item.popularity is not None, item.id
        assert item.updated_at is not None, item.id
        assert item.attributes, item.id
        assert item.tags, item.id
        assert item.url.endswith(item.id)
        assert item.image_url


def test_texts_are_finished(items: list[Item]) -> None:
    for item in items:
        for text in (item.title, item.description):
            assert not PLACEHOLDERS.search(text), text
            # Chinese titles separate their parts by single spaces; descriptions end in a full stop of either kind.
            assert not UNTIDY.search(text.removeprefix('"')), text
        assert item.description[-1] in ".。!", item.description


def test_titles_agree_with_attributes(items: list[Item], types: list[ProductType]) -> None:
    """Variants that differ in a color say which one. (A black car mount need not.)"""
    colored = {kind.category_path for kind in types if kind.vary in ("color", "finish")}
    single = {kind.category_path for kind in types if kind.vary not in ("color", "finish")}
    checked = 0
    for item in items:
        if item.category_path in colored - single:
            (said,) = (item.attributes[name].text[0] for name in ("color", "finish") if name in item.attributes)
            assert said in item.title, item
            checked += 1
    assert checked > 1_000


def test_titles_hardly_repeat(items: list[Item]) -> None:
    assert len({item.title for item in items}) > 0.98 * len(items)


def test_neighbours_do_not_look_stamped(items: list[Item]) -> None:
    """Within a category, two products rarely share a description."""
    products: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for item in items:
        products[tuple(item.category_path)][item.group_id or item.id] = item.description
    texts = [text for category in products.values() for text in category.values()]
    distinct = sum(len(set(category.values())) for category in products.values())
    assert distinct > 0.9 * len(texts)


def test_chinese_items(items: list[Item]) -> None:
    chinese = [item for item in items if item.language_code == "zh"]
    assert 150 <= len(chinese) <= 250
    for item in chinese:
        assert CHINESE.search(item.title), item.title
        assert CHINESE.search(item.description), item.description
        assert CHINESE.search(item.brand), item.brand
        assert not re.search("[\u4e00-\u9fff],", item.description), item.description
        # One tree of categories for all languages, so that one filter finds both.
        assert not any(CHINESE.search(part) for part in item.category_path)
    assert not any(CHINESE.search(i.title + i.description) for i in items if i.language_code == "en")


def test_variants_share_a_group(items: list[Item]) -> None:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.group_id:
            groups[item.group_id].append(item)
    assert len(groups) > 800
    whole = list(groups.values())[:-1]  # the last may have been cut by the number asked for
    for variants in whole:
        assert len(variants) >= 2
        assert len({v.title for v in variants}) == len(variants)
        assert len({v.category_path for v in variants}) == 1
        assert len({v.brand for v in variants}) == 1
        assert all(v.id.startswith(v.group_id) for v in variants)


def test_prices_are_believable(items: list[Item], types: list[ProductType]) -> None:
    bounds: dict[tuple[str, ...], tuple[float, float]] = {}
    for kind in types:
        low, high = bounds.get(kind.category_path, kind.price)
        bounds[kind.category_path] = (min(low, kind.price[0]), max(high, kind.price[1]))
    for item in items:
        assert item.price is not None
        low, high = bounds[tuple(item.category_path)]
        price = item.price.micros / MICROS_PER_UNIT
        # A shelf price rounds to the nearest ending.
        assert low - 10 <= price <= high + 10, item
        assert price > 0
    endings = Counter(f"{i.price.micros // 10_000 % 100:02}" for i in items if i.price)
    assert endings["99"] > 0.5 * len(items)


def test_dearer_specifications_cost_more(items: list[Item]) -> None:
    def median(memory: float) -> float:
        prices = sorted(
            item.price.micros
            for item in items
            if item.price and memory in item.attributes.get("ram_gb", item.attributes["features"]).numbers
        )
        return prices[len(prices) // 2]

    laptops = [i for i in items if i.category_path[-1] == "Laptops"]
    items = laptops
    assert median(8) < median(16) < median(32)


def test_popularity_has_a_long_tail(items: list[Item]) -> None:
    popularity = sorted((i.popularity or 0 for i in items), reverse=True)
    assert sum(popularity[:400]) > 0.4 * sum(popularity)
    assert popularity[0] > 50 * popularity[len(popularity) // 2]
    assert 0.85 < sum(i.in_stock is True for i in items) / len(items) < 0.98
    assert all((i.rating is None) == (i.rating_count == 0) for i in items)


@pytest.mark.parametrize(
    "words",
    [
        ("Bunk Bed", "Stairs"),
        ("Noise Cancelling", "Headphones", "for Travel"),
        ("Waterproof", "Hiking Boots", "Women"),
        ("Coffee Lover", "Gift"),
        ("18V", "Cordless", "Drill"),
        ("无线", "蓝牙耳机"),
        ("Office Chair", "Back Pain"),
        ("Yoga Mat",),
        ("Robot Vacuum", "Pet Hair"),
        ("Acoustic Guitar", "for Beginners"),
    ],
)
def test_a_shopper_finds_the_obvious(items: list[Item], words: tuple[str, ...]) -> None:
    assert sum(all(word in item.title for word in words) for item in items) >= 2


def test_ids_stay_distinct_when_there_are_many() -> None:
    ids = [item.id for item in generate(12_000)]
    assert len(set(ids)) == len(ids)


def test_types_are_well_formed(types: list[ProductType]) -> None:
    assert len({kind.key for kind in types}) == len(types)
    for kind in types:
        assert kind.titles, kind.key
        assert kind.brands, kind.key
        assert kind.intros, kind.key
        assert kind.outros, kind.key
        assert len(kind.features) >= 2, kind.key
        assert 0 < kind.price[0] < kind.price[1], kind.key
        assert all(choice.factor > 0 for slot in kind.slots for choice in slot.choices), kind.key


def test_a_variant_attribute_shows_in_every_title(types: list[ProductType]) -> None:
    """Otherwise two variants would read the same."""
    for kind in types:
        if kind.vary:
            assert all(f"{{{kind.vary}}}" in title for title in kind.titles), kind.key
