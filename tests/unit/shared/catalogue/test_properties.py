"""Whatever stands in a file, reading it yields items that can be stored, row errors, or one clear error."""

import csv
import json
import string
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.catalogue import CatalogueError, RowError, read_catalogue, write_jsonl
from shared.items import Attribute, Item, Money, violations

names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20).map(str.strip).filter(bool)
ids = st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=20)
finite = st.floats(0, 1e9, allow_nan=False)

items = st.builds(
    Item,
    id=ids,
    title=names,
    description=names | st.just(""),
    brand=names | st.just(""),
    category_path=st.lists(names, max_size=4, unique=True).map(tuple),
    price=st.none() | st.builds(Money, st.sampled_from(["USD", "EUR", "CNY"]), st.integers(0, 10**17)),
    in_stock=st.none() | st.booleans(),
    rating=st.none() | st.floats(0, 5),
    rating_count=st.none() | st.integers(0, 10**9),
    popularity=st.none() | finite,
    tags=st.lists(names, max_size=4, unique=True).map(tuple),
    attributes=st.dictionaries(
        names,
        st.builds(Attribute, st.lists(names, max_size=3).map(tuple), st.lists(finite, max_size=3).map(tuple)).filter(
            lambda a: bool(a.text or a.numbers)
        ),
        max_size=4,
    ),
    group_id=ids | st.just(""),
    language_code=st.sampled_from(["", "en", "zh"]),
    updated_at=st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
columns = st.sampled_from(
    [
        "id", "title", "description", "brand", "category", "price", "price_cents", "currency", "stock", "rating",
        "rating_count", "popularity", "tags", "attributes", "color", "group_id", "language", "url", "updated_at",
    ]
)  # fmt: skip

HEADER = [
    "id", "title", "description", "brand", "category", "price", "currency", "stock", "rating", "rating_count",
    "popularity", "tags", "attributes", "color", "group_id", "language", "url", "image_url", "updated_at",
]  # fmt: skip


@contextmanager
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


def check(path: Path) -> None:
    try:
        for row in read_catalogue(path):
            assert isinstance(row, RowError) or violations(row) == []
    except CatalogueError:
        pass


@given(st.lists(items, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(written: list[Item]) -> None:
    with folder() as at:
        write_jsonl(written, at / "x.jsonl")
        assert list(read_catalogue(at / "x.jsonl")) == written


@given(st.lists(st.dictionaries(columns, json_values, max_size=8), max_size=5))
@settings(max_examples=150, deadline=None)
def test_any_json_rows(rows: list[dict[str, object]]) -> None:
    with folder() as at:
        good = {"id": "1", "title": "t"}
        (at / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [good, *rows]))
        check(at / "x.jsonl")


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_bytes(content: bytes) -> None:
    with folder() as at:
        for name in ("x.jsonl", "x.csv", "x.csv.zip", "x.jsonl.gz"):
            (at / name).write_bytes(content)
            check(at / name)
        for name, head in (("y.csv", b"id,title,price\n"), ("y.jsonl", b'{"id":"1","title":"t"}\n')):
            (at / name).write_bytes(head + content)
            check(at / name)


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=("Cs",))), min_size=19, max_size=19), max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_csv_cells(rows: list[list[str]]) -> None:
    with folder() as at:
        with (at / "x.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            writer.writerows(rows)
        check(at / "x.csv")
