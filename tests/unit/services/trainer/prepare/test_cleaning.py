from pathlib import Path

import polars as pl
import pytest

from services.trainer.errors import JobError
from services.trainer.prepare.cleaning import REASONS, clean
from services.trainer.prepare.judgements import query_key, scan_csv
from services.trainer.prepared import Grades

GRADES = Grades(lowest=0, highest=3, relevant=2)
IDS = pl.LazyFrame({"item_id": ["a", "b", "c"]})


def written(path: Path, *rows: str) -> pl.LazyFrame:
    (path / "j.csv").write_text("\n".join(["query,item_id,grade", *rows]) + "\n", encoding="utf-8")
    return scan_csv(path / "j.csv")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (" ,a,2", "missing_query"),
        ("desk,,2", "missing_item"),
        ("desk,a,", "missing_grade"),
        ("desk,a,good", "missing_grade"),
        ("desk,a,NaN", "missing_grade"),
        ("desk,a,3.5", "grade_out_of_range"),
        ("desk,z,2", "unknown_item"),
    ],
)
def test_a_row_that_cannot_be_used_is_dropped_for_its_reason(tmp_path: Path, row: str, reason: str) -> None:
    cleaned = clean(written(tmp_path, row, "lamp,b,1"), IDS, GRADES, contradiction=1)
    assert cleaned.read == 2
    assert {name: rows for name, rows in cleaned.dropped.items() if rows} == {reason: 1}
    assert cleaned.rows.rows() == [("lamp", "lamp", "b", 1.0)]


def test_duplicates_become_their_mean_and_contradictions_nothing(tmp_path: Path) -> None:
    rows = ["Oak  Desk,a,2", "oak desk,a,2.5", "oak-desk,b,0", "oak desk,b,3", "OAK DESK,b,3", "lamp,c,1"]
    cleaned = clean(written(tmp_path, *rows), IDS, GRADES, contradiction=1)
    assert cleaned.rows.rows() == [("lamp", "lamp", "c", 1.0), ("oak desk", "Oak Desk", "a", 2.25)]
    assert cleaned.dropped["duplicate"] == 1
    assert cleaned.dropped["contradictory"] == 3
    assert set(cleaned.dropped) == set(REASONS)


def test_every_row_read_is_kept_or_dropped(tmp_path: Path) -> None:
    rows = ["desk,a,2", "desk,a,2", "desk,z,2", ",a,1", "desk,b,9", "lamp,c,0", "lamp,c,3"]
    cleaned = clean(written(tmp_path, *rows), IDS, GRADES, contradiction=1)
    assert cleaned.read == len(rows) == cleaned.rows.height + sum(cleaned.dropped.values())


@pytest.mark.parametrize(
    ("query", "key"),
    [("  Café-Table ", "café table"), ("Ｗｉ－Ｆｉ", "wi fi"), ("2x4'", "2x4"), ("???", "???"), ("绿茶", "绿茶")],
)
def test_the_key_of_a_query(query: str, key: str) -> None:
    assert pl.DataFrame({"query": [query]}).select(query_key()).item() == key


def test_a_file_that_holds_no_judgements_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no such file"):
        scan_csv(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("query,rating\na,1\n")
    with pytest.raises(JobError, match="no column item_id, grade"):
        scan_csv(tmp_path / "other.csv")
