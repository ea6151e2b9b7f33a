"""Purchases of a British gift shop, December 2009 to December 2011: 5,852 customers, 4,619 items, 776,577 lines.

Chen, Online Retail II, UCI Machine Learning Repository, CC BY 4.0. Many customers are wholesalers.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from shared.items import MICROS_PER_UNIT, Item, Money
from tests.evaluation.datasets.interactions import Dataset, Interactions, cold_items, fold

VALIDATION_FROM = datetime(2011, 9, 1, tzinfo=UTC)
TEST_FROM = datetime(2011, 11, 1, tzinfo=UTC)


def load(folder: Path) -> Dataset:
    """Reads the set from `folder`. By time: history before September 2011, validation to the end of October, test after
    it; foreseen are a customer's first purchases of an item, of customers who bought before.

    Raises `FileNotFoundError` where the files are not there.
    """
    table = pq.read_table(folder / "items.parquet", columns=["StockCode", "description", "median_price"])
    items = [_item(**row) for row in table.to_pylist()]
    numbers = {item.id: at for at, item in enumerate(items)}
    # One line an order and item: a line that stands twice in an order is one purchase.
    lines = pq.read_table(
        folder / "transactions.parquet", columns=["InvoiceNo", "CustomerID", "StockCode", "InvoiceDate"]
    )
    seconds = lines["InvoiceDate"].to_numpy().astype("datetime64[s]").astype(np.int64)
    rows = dict.fromkeys(
        zip(
            lines["InvoiceNo"].to_pylist(),
            lines["CustomerID"].to_pylist(),
            lines["StockCode"].to_pylist(),
            seconds.tolist(),
            strict=True,
        )
    )
    customers = sorted({row[1] for row in rows})
    user_numbers = {customer: at for at, customer in enumerate(customers)}
    everything = Interactions.sorted(
        np.array([user_numbers[row[1]] for row in rows]),
        np.array([numbers[row[2]] for row in rows]),
        np.array([row[3] for row in rows]),
    )
    validation, test = (int(time.timestamp()) for time in (VALIDATION_FROM, TEST_FROM))
    before, after = everything.where(everything.times_s < test), everything.where(everything.times_s >= test)
    shape = (len(customers), len(items))
    return Dataset(
        "online_retail",
        items,
        [str(customer) for customer in customers],
        validation=fold(before.where(before.times_s < validation), before.where(before.times_s >= validation), *shape),
        test=fold(before, after, *shape),
        cold=fold(before, after, *shape, cold_items(len(items))),
    )


def _item(StockCode: str, description: str, median_price: float) -> Item:  # noqa: N803
    price = Money("GBP", round(median_price * MICROS_PER_UNIT))
    return Item(id=StockCode, title=description, price=price)
