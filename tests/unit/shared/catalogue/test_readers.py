import csv
import gzip
import json
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from shared.catalogue import (
    CatalogueError,
    MappingError,
    NoUsableRowError,
    UnreadableCatalogueError,
    read_catalogue,
)
from shared.catalogue.tables import MAX_LINE_BYTES
from shared.items import Attribute, Item, Money
from tests.unit.shared.catalogue.conftest import lines, split

ROWS: list[dict[str, object]] = [
    {"sku": "a", "name": "Lamp", "price": 19.99, "category": "Home > Lamps", "stock": 3},
    {"sku": "b", "name": "Stuhl, grün", "price": 5, "category": "Home", "stock": 0},
]


def write_csv(path: Path, rows: list[dict[str, object]] = ROWS, delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"items{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    plain = folder / "plain"
    if suffix.startswith(".csv"):
        write_csv(plain)
    else:
        plain.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    if suffix.endswith(".gz"):
        path.write_bytes(gzip.compress(plain.read_bytes()))
    elif suffix.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(plain, "folder/items" + suffix.removesuffix(".zip"))
            archive.writestr("readme.txt", "hello")
    else:
        plain.rename(path)
    return path


@pytest.mark.parametrize(
    "suffix", [".jsonl", ".jsonl.gz", ".jsonl.zip", ".csv", ".csv.gz", ".csv.zip", ".parquet", ".CSV"]
)
def test_every_format_reads_the_same(tmp_path: Path, suffix: str) -> None:
    with read_catalogue(write(tmp_path, suffix.lower()).rename(tmp_path / f"x{suffix}")) as reader:
        assert list(reader) == [
            Item(
                id="a",
                title="Lamp",
                price=Money("USD", 19_990_000),
                category_path=("Home", "Lamps"),
                in_stock=True,
            ),
            Item(
                id="b",
                title="Stuhl, grün",
                price=Money("USD", 5_000_000),
                category_path=("Home",),
                in_stock=False,
            ),
        ]
        assert (reader.items, reader.rejected, reader.duplicates) == (2, 0, 0)
        assert reader.fraction_read == 1.0


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters(tmp_path: Path, delimiter: str) -> None:
    items, errors = split(write_csv(tmp_path / "x.csv", delimiter=delimiter))
    assert [i.title for i in items] == ["Lamp", "Stuhl, grün"]
    assert not errors


def test_a_mapping_is_applied(tmp_path: Path) -> None:
    path = lines(tmp_path, "code,text,cents,hue", "1,Red lamp,1999,red", name="x.csv")
    items, _ = split(path, "id=code,title=text,price=cents/100,currency==EUR,attributes.color=hue")
    assert items == [
        Item(
            id="1",
            title="Red lamp",
            price=Money("EUR", 19_990_000),
            attributes={"color": Attribute(("red",))},
        )
    ]


def test_repeated_tags_are_one_and_repeated_category_levels_stay(tmp_path: Path) -> None:
    path = lines(tmp_path, "id,title,category,tags", '1,Chess,Toys > Games > Games,"new, wood, new"', name="x.csv")
    (item,), _ = split(path)
    assert (item.category_path, item.tags) == (("Toys", "Games", "Games"), ("new", "wood"))


def test_currency_said_beats_currency_seen(tmp_path: Path) -> None:
    path = lines(
        tmp_path, '{"id":"1","title":"t","price":"$5","currency":"cad"}', '{"id":"2","title":"t","price":"€5"}'
    )
    assert [i.price for i in split(path)[0]] == [Money("CAD", 5_000_000), Money("EUR", 5_000_000)]


def test_bad_rows_are_named_and_skipped(tmp_path: Path) -> None:
    secret = "SECRET"
    path = lines(
        tmp_path,
        '{"id": "1", "title": "good"}',
        f'{{"id": "2", "title": "{secret}",',
        f'["{secret}"]',
        "",
        f'{{"id": "", "title": "{secret}"}}',
        f'{{"id": "4", "title": "x", "price": "{secret}"}}',
        f'{{"id": "5", "title": "{secret}", "rating": 7}}',
        '{"id": "6", "title": "x", "price": NaN}',
        '{"id": "7", "title": "bad \\ud800"}',
        f'{{"id": "8", "title": "{secret * 1000}"}}',
        '{"id": "9", "title": "caf\udce9"}',
        '{"id": "10", "title": "good"}',
    )
    items, errors = split(path)
    assert [i.id for i in items] == ["1", "10"]
    assert [(e.line, e.field) for e in errors] == [
        (2, ""), (3, ""), (5, "id"), (6, "price"), (7, "rating"), (8, ""), (9, "title"), (10, "title"),
        (11, "title"),
    ]  # fmt: skip
    assert secret not in " ".join(map(str, errors))
    assert str(errors[2]) == "line 5: id: must not be empty"


def test_bad_csv_rows(tmp_path: Path) -> None:
    path = lines(
        tmp_path,
        "id,title,price",
        "1,good,5",
        "2,too,many,cells",
        "3,few",
        '4,"two',
        'lines",5',
        '5,"bad" quote,5',
        "6,negative,-5",
        "7,caf\udce9,5",
        ",,",
        "8,good,",
        name="x.csv",
    )
    items, errors = split(path)
    assert [(i.id, i.title) for i in items] == [("1", "good"), ("4", "two\nlines"), ("8", "good")]
    assert [(e.line, e.field) for e in errors] == [(3, ""), (4, ""), (7, ""), (8, "price"), (9, "title")]


def test_an_open_quote_does_not_swallow_the_file(tmp_path: Path) -> None:
    rest = [f"{n},{'x' * 200},5" for n in range(2, 3_000)]
    items, errors = split(lines(tmp_path, "id,title,price", '1,"open,5', *rest, name="x.csv"))
    assert len(items) > 1_000
    assert errors[0].line == 2
    assert "quote" in errors[0].reason


def test_lines_without_end_are_skipped(tmp_path: Path) -> None:
    long = "x" * (MAX_LINE_BYTES * 2 + 5)
    for name, head in (("x.csv", ["id,title", "1,a"]), ("x.jsonl", ['{"id":"1","title":"a"}'])):
        last = head[-1].replace("1", "2")
        items, errors = split(lines(tmp_path, *head, long, last, name=name))
        assert [i.id for i in items] == ["1", "2"], name
        assert [e.line for e in errors] == [len(head) + 1], name


def test_duplicates_come_in_order_and_are_counted(tmp_path: Path) -> None:
    path = lines(tmp_path, *(f'{{"id": "{n % 3_000}", "title": "t{n}"}}' for n in range(6_000)))
    reader = read_catalogue(path)
    kept = {row.id: row.title for row in reader if isinstance(row, Item)}
    assert (reader.items, reader.duplicates, len(kept)) == (6_000, 3_000, 3_000)
    assert kept["0"] == "t3000"


def test_attributes_past_the_limits_are_left_out(tmp_path: Path) -> None:
    many = {f"a{n}": n for n in range(100)}
    content = {"id": "1", "title": "t", "color": "red", "attributes": {"long": "x" * 200, **many}}
    with read_catalogue(lines(tmp_path, json.dumps(content))) as reader:
        item = next(reader)
    assert isinstance(item, Item)
    assert len(item.attributes) == 64
    assert "color" in item.attributes
    assert "long" not in item.attributes
    assert reader.trimmed == 1


def test_parquet_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, None], pa.int64()),
            "title": ["a", "b"],
            "price": pa.array([None, 2.5], pa.float64()),
            "categories": [["A", "B"], None],
            "updated_at": pa.array([1_740_830_400_000_000_001, None], pa.timestamp("ns")),
            "attributes": pa.array([[("color", "red")], None], pa.map_(pa.string(), pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    (item,), (error,) = split(tmp_path / "x.parquet")
    assert (item.id, item.category_path, item.price) == ("1", ("A", "B"), None)
    assert item.updated_at is not None
    assert item.updated_at.isoformat() == "2025-03-01T12:00:00+00:00"
    assert item.attributes == {"color": Attribute(("red",))}
    assert (error.line, error.field) == (2, "id")


@pytest.mark.parametrize(
    ("kind", "never"),
    [
        (pa.timestamp("us"), 9 * 10**17),
        (pa.timestamp("us", "UTC"), 9 * 10**17),
        (pa.timestamp("ms"), 2**62),
        (pa.timestamp("s"), 9 * 10**11),
        (pa.date64(), 9 * 10**17),
    ],
    ids=str,
)
def test_a_time_that_python_has_not_fails_its_row_alone(tmp_path: Path, kind: pa.DataType, never: int) -> None:
    times = pa.array([None, never, None], pa.int64()).cast(kind)
    pq.write_table(
        pa.table({"id": ["1", "2", "3"], "title": ["a", "b", "c"], "updated_at": times}), tmp_path / "x.parquet"
    )
    items, (error,) = split(tmp_path / "x.parquet")
    assert [i.id for i in items] == ["1", "3"]
    assert str(error) == "line 2: column 'updated_at' holds a date or time outside the years 1 to 9999"


def test_an_attribute_whose_name_is_not_utf8_fails_its_row(tmp_path: Path) -> None:
    path = lines(
        tmp_path,
        '{"id": "1", "title": "t", "attributes.\\ud800z": "x"}',
        '{"id": "2", "title": "t", "attributes.gr\udcf6\udcdfe": "x"}',
        '{"id": "3", "title": "t", "attributes.\\ud800z": null, "attributes.size": "x"}',
    )
    (item,), errors = split(path)
    assert (item.id, item.attributes) == ("3", {"size": Attribute(("x",))})
    assert [str(e) for e in errors] == [f"line {n}: attributes: is not valid UTF-8" for n in (1, 2)]


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_a_file_without_rows(tmp_path: Path, name: str) -> None:
    path = lines(tmp_path, "id,title" if name == "x.csv" else "", name=name)
    with pytest.raises(NoUsableRowError, match="holds no rows"):
        split(path)


def test_a_parquet_file_without_rows(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"id": pa.array([], pa.string()), "title": pa.array([], pa.string())}), tmp_path / "x.parquet"
    )
    with pytest.raises(NoUsableRowError, match="holds no rows"):
        split(tmp_path / "x.parquet")


def test_a_file_without_a_usable_row_says_why(tmp_path: Path) -> None:
    path = lines(tmp_path, "id,title,price", ",x,1", "2,,1", "3,x,free", "4,x,y", name="x.csv")
    with pytest.raises(NoUsableRowError, match=r"none of 4 rows.*line 2: id: .*line 3: title: .*line 4: price: [^;]*$"):
        split(path)


def test_junk_json_lines(tmp_path: Path) -> None:
    with pytest.raises(NoUsableRowError, match="is not JSON"):
        split(lines(tmp_path, "hello", "world"))


def make_unreadable(folder: Path, kind: str) -> Path:
    whole = write(folder, ".csv.zip").read_bytes()
    packed = gzip.compress(b'{"id":"1","title":"t"}\n' * 10_000)
    contents: dict[str, tuple[str, bytes]] = {
        "unknown extension": ("x.xlsx", b""),
        "empty csv": ("x.csv", b""),
        "blank header": ("x.csv", b",,\n1,2,3\n"),
        "repeated column": ("x.csv", b"id,title,id\n1,2,3\n"),
        "latin-1 header": ("x.csv", "id,título\n".encode("latin-1")),
        "utf-16": ("x.csv", "id,title\n1,2\n".encode("utf-16")),
        "truncated zip": ("x.csv.zip", whole[:-30]),
        "not a zip": ("x.csv.zip", b"hello"),
        "truncated gzip": ("x.jsonl.gz", packed[: len(packed) // 2]),
        "not gzip": ("x.jsonl.gz", b"hello"),
        "not parquet": ("x.parquet", b"hello"),
        "truncated parquet": ("x.parquet", write(folder, ".parquet").read_bytes()[:-20]),
        "header line without end": ("x.csv", b"x" * (MAX_LINE_BYTES + 5)),
    }
    name, content = contents[kind]
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("unknown extension", "the formats are .jsonl"),
        ("empty csv", "is empty"),
        ("blank header", "must name the columns"),
        ("repeated column", "twice: id"),
        ("latin-1 header", "not UTF-8"),
        ("utf-16", "UTF-16"),
        ("truncated zip", "damaged"),
        ("not a zip", "damaged"),
        ("truncated gzip", "damaged"),
        ("not gzip", "damaged"),
        ("not parquet", "damaged"),
        ("truncated parquet", "damaged"),
        ("header line without end", "not a CSV header"),
    ],
)
def test_unreadable_files(tmp_path: Path, kind: str, message: str) -> None:
    path = make_unreadable(tmp_path, kind)
    with pytest.raises(UnreadableCatalogueError, match=message) as caught:
        split(path)
    assert path.name in str(caught.value)


def test_zips_hold_one_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "id,title\n")
        archive.writestr("b.csv", "id,title\n")
    with pytest.raises(UnreadableCatalogueError, match=r"exactly one .csv file; found: a.csv, b.csv"):
        split(path)


def test_corrupt_zip_content(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv.zip")
    content = bytearray(path.read_bytes())
    start = content.index(b"items.csv") + len("items.csv")
    content[start : start + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(CatalogueError):
        split(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UnreadableCatalogueError, match="no such file"):
        read_catalogue(tmp_path / "no.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UnreadableCatalogueError, match="is not a file"):
        read_catalogue(tmp_path / "folder.csv")


def test_byte_order_marks(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbfid,title\n1,a\n")
    assert split(tmp_path / "x.csv")[0][0].id == "1"


def test_mapping_errors_come_before_the_first_row(tmp_path: Path) -> None:
    path = write(tmp_path, ".jsonl")
    with pytest.raises(MappingError, match="the columns are sku, name"):
        read_catalogue(path, "brand=maker")
    with pytest.raises(MappingError, match="no column gives the id"):
        read_catalogue(lines(tmp_path, '{"title": "t"}'))


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, ".parquet")
    monkeypatch.delitem(sys.modules, "shared.catalogue.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnreadableCatalogueError, match=r"pip install 'aisle\[local\]'"):
        read_catalogue(path)


def test_stopping_early_releases_the_file(tmp_path: Path) -> None:
    reader = read_catalogue(write(tmp_path, ".csv"))
    next(reader)
    reader.close()
    reader.close()
    assert reader.fraction_read == 1.0
