from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from shared.catalogue import values
from shared.catalogue.errors import RowProblem
from shared.items import Attribute


@pytest.mark.parametrize(
    ("cell", "micros", "currency"),
    [
        (19.99, 19_990_000, ""),
        (Decimal("19.99"), 19_990_000, ""),
        (5, 5_000_000, ""),
        ("19.99", 19_990_000, ""),
        (" 0.1 ", 100_000, ""),
        ("$1,299.00", 1_299_000_000, "USD"),
        ("1.299,00 €", 1_299_000_000, "EUR"),
        ("EUR 12", 12_000_000, "EUR"),
        ("12.50 gbp", 12_500_000, "GBP"),
        ("1,299", 1_299_000_000, ""),
        ("12,99", 12_990_000, ""),
        ("1.234.567", 1_234_567_000_000, ""),
        ("1 299,50", 1_299_500_000, ""),
        ("1'299.50", 1_299_500_000, ""),
        ("-5", -5_000_000, ""),
        (17.991000000000003, 17_991_000, ""),
        ({"amount": "3.50", "currency": "EUR"}, 3_500_000, "EUR"),
        ({"value": 3, "currency_code": "USD"}, 3_000_000, "USD"),
    ],
)
def test_money(cell: object, micros: int, currency: str) -> None:
    assert values.money(cell) == (micros, currency)


def test_money_divides_exactly() -> None:
    assert values.money(1999, 100) == (19_990_000, "")
    assert values.money("2334", 100) == (23_340_000, "")
    assert values.money(1, 1_000_000) == (1, "")


@pytest.mark.parametrize("cell", [None, "", "  ", float("nan"), {"currency": "EUR"}])
def test_no_money(cell: object) -> None:
    assert not values.money(cell)


@pytest.mark.parametrize(
    "cell", ["cheap", "1,29999", "1,2,3", "12.5.1,0", "0.0000001", "1e99", "$$5", "zl. 5", True, "inf", "5-5", [5]]
)
def test_bad_money(cell: object) -> None:
    with pytest.raises(RowProblem) as caught:
        values.money(cell)
    assert caught.value.field == "price"
    assert str(cell) not in caught.value.reason


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (True, True), (0, False), (3, True), ("12", True), ("0", False), ("In Stock", True), ("in_stock", True),
        ("https://schema.org/OutOfStock", False), ("no", False), ("preorder", False), (None, None), ("", None),
    ],
)  # fmt: skip
def test_stock(cell: object, expected: bool | None) -> None:
    assert values.stock(cell, "in_stock") is expected


def test_bad_stock() -> None:
    with pytest.raises(RowProblem, match="availability"):
        values.stock("perhaps", "in_stock")


@pytest.mark.parametrize(
    "cell",
    [
        "2025-03-01T12:00:00Z", "2025-03-01T13:00:00+01:00", "2025-03-01 12:00", 1_740_830_400, "1740830400000",
        datetime(2025, 3, 1, 12, tzinfo=UTC), datetime(2025, 3, 1, 12),  # noqa: DTZ001  # as Parquet gives it
    ],
)  # fmt: skip
def test_timestamp(cell: object) -> None:
    assert values.timestamp(cell, "updated_at") == datetime(2025, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("cell", [date(2025, 3, 1), "2025-03-01", " 20250301 ", 20250301, 20250301.0])
def test_a_date_is_its_midnight(cell: object) -> None:
    assert values.timestamp(cell, "updated_at") == datetime(2025, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("cell", ["2024", 2024, "202401", 19_753, 1, -1, 946_684_799, "202401311200", 20240131120000])
def test_a_number_too_small_or_large_for_a_time_is_not_read_as_one(cell: object) -> None:
    with pytest.raises(RowProblem, match="write ISO 8601, such as 2024-01-31"):
        values.timestamp(cell, "updated_at")


@pytest.mark.parametrize("cell", [0, 0.0, "0"])
def test_nought_is_no_time(cell: object) -> None:
    assert values.timestamp(cell, "updated_at") is None


@pytest.mark.parametrize("cell", ["yesterday", 10**30, "9" * 30, True, "2025-13-01", "20251301", 20251301, -(10**17)])
def test_bad_timestamp(cell: object) -> None:
    with pytest.raises(RowProblem):
        values.timestamp(cell, "updated_at")


@pytest.mark.parametrize(
    ("cell", "separators", "expected"),
    [
        ("A > B > C", ">|", ("A", "B", "C")),
        ("A|B", ">|", ("A", "B")),
        ("Toys & Games, Puzzles", ">|", ("Toys & Games, Puzzles",)),
        (["A", " B ", ""], ">|", ("A", "B")),
        ('["A", "B"]', ">|", ("A", "B")),
        ("[Sale] Shoes", ">|", ("[Sale] Shoes",)),
        ("red, blue", "|;,", ("red", "blue")),
        ("Toys > Games > Games", ">|", ("Toys", "Games", "Games")),
        (None, ",", ()),
    ],
)
def test_words(cell: object, separators: str, expected: tuple[str, ...]) -> None:
    assert values.words(cell, "tags", separators) == expected


def test_attributes() -> None:
    read = values.attributes(
        '{"color": "red", "sizes": ["S", "M"], "watts": 60, "dim": 2.5, "smart": false, "none": null,'
        ' "mixed": ["a", 1]}'
    )
    assert read == {
        "color": Attribute(("red",)),
        "sizes": Attribute(("S", "M")),
        "watts": Attribute((), (60.0,)),
        "dim": Attribute((), (2.5,)),
        "smart": Attribute(("false",)),
        "mixed": Attribute(("a",), (1.0,)),
    }
    assert values.attributes([{"name": "color", "value": "red"}]) == {"color": Attribute(("red",))}
    assert values.attributes([("color", "red")]) == {"color": Attribute(("red",))}
    assert values.attributes({"a": {"b": 1}}) == {"a": Attribute(('{"b": 1}',))}


@pytest.mark.parametrize("cell", ["red", "{", '{"a": 1e400}', '{"a": NaN}', 5, [5], "[" * 100_000])
def test_bad_attributes(cell: object) -> None:
    with pytest.raises(RowProblem):
        values.attributes(cell)


def test_untyped_numbers_are_both() -> None:
    assert values.attribute("42", untyped=True) == Attribute(("42",), (42.0,))
    assert values.attribute("007", untyped=True) == Attribute(("007",))
    assert values.attribute("42") == Attribute(("42",))


def test_text() -> None:
    assert values.text(12.0, "id") == "12"
    assert values.text(" a ", "id") == "a"
    assert values.text(None, "id") == ""
    for bad in ({"a": 1}, ["a"], b"a", "\udce4"):
        with pytest.raises(RowProblem):
            values.text(bad, "id")


def test_counts() -> None:
    assert values.count("1,234", "rating_count") == 1234
    assert values.count(12.0, "rating_count") == 12
    for bad in ("a", 1.5, True, "1e9999999999"):
        with pytest.raises(RowProblem):
            values.count(bad, "rating_count")
