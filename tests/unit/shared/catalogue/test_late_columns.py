"""JSON Lines whose later rows have columns that the first hundred have not."""

from pathlib import Path

import pytest

from shared.catalogue import MappingError, NoUsableRowError, read_catalogue
from shared.items import Attribute, Item, Money
from tests.unit.shared.catalogue.conftest import lines, split


def test_names_that_are_new_in_every_row_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.catalogue.mapping._MOST_COLUMNS", 110)
    rows = [f'{{"id": "{n}", "title": "t", "seen by {n}": 1, "attributes.a{n}": "x"}}' for n in range(300)]
    with read_catalogue(lines(tmp_path, *rows)) as reader:
        assert sum(isinstance(row, Item) for row in reader) == 300
        # The first hundred rows are looked at together, before there is anything to bound.
        assert len(reader.binding.columns) == 2 + 2 * 100
        assert len(reader.binding.attributes) == 100


def test_columns_may_turn_up_late(tmp_path: Path) -> None:
    early = [f'{{"id": "{n}", "title": "t"}}' for n in range(150)]
    items, errors = split(lines(tmp_path, *early, '{"id": "x", "title": "t", "brand": "B", "colour": "red"}'))
    assert not errors
    assert items[-1].brand == "B"
    assert items[-1].attributes == {"color": Attribute(("red",))}


def test_mapped_columns_may_turn_up_late(tmp_path: Path) -> None:
    early = [f'{{"id": "{n}", "title": "t"}}' for n in range(100)]
    path = lines(tmp_path, *early, '{"id": "x", "title": "t", "sale": 3}')
    items, _ = split(path, "price=sale")
    assert [i.price for i in items[-2:]] == [None, Money("USD", 3_000_000)]
    with read_catalogue(path, "price=sold") as reader:
        assert sum(isinstance(next(reader), Item) for _ in range(101)) == 101
        with pytest.raises(
            MappingError, match=r"'sold', which the file does not have.*the columns are id, title, sale"
        ):
            next(reader)


def test_a_mapping_holds_after_rows_that_cannot_be_read(tmp_path: Path) -> None:
    path = lines(tmp_path, *["not json"] * 100, '{"sku": "x", "name": "t", "amount": 3}')
    (item,), _ = split(path, "id=sku,title=name,price=amount,currency==EUR")
    assert item == Item(id="x", title="t", price=Money("EUR", 3_000_000))
    with pytest.raises(MappingError, match=r"id is mapped to column 'code'.*the columns are sku, name, amount"):
        split(path, "id=code,title=name")
    with pytest.raises(NoUsableRowError, match="is not JSON"):
        split(lines(tmp_path, *["not json"] * 100), "id=sku,title=name")
