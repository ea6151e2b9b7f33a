"""The readers on real catalogues, each with the mapping it needs."""

from pathlib import Path

import pytest

from shared.catalogue import read_catalogue
from shared.items import Item, Money

DATA = Path(__file__).parents[5] / "shared" / "data"

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there"),
]


@pytest.mark.parametrize(
    ("file", "mapping", "items", "rejected"),
    [
        ("amazon_24k/products.parquet", "price=price/100", 24_575, 1),
        ("icecat/products.parquet", "price=price/100,image_url=img_500x500", 19_406, 0),
        ("home_depot/products.parquet", "", 54_667, 0),
        ("online_retail/items.parquet", "price=median_price,currency==GBP,popularity=n_customers", 4_619, 0),
    ],
)
def test_real_catalogues(file: str, mapping: str, items: int, rejected: int) -> None:
    reader = read_catalogue(DATA / file, mapping)
    for _ in reader:
        pass
    assert (reader.items, reader.rejected, reader.duplicates) == (items, rejected, 0)


def test_fields_of_a_real_item() -> None:
    with read_catalogue(DATA / "icecat/products.parquet", "price=price/100") as reader:
        item = next(reader)
    assert isinstance(item, Item)
    assert item.id == "3920564"
    assert item.brand == "Xerox"
    assert item.price == Money("USD", 49_950_000)
    assert item.attributes["attr_n_quantity_per_pack"].numbers == (6.0,)
