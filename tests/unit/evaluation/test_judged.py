"""Judged shops as they are made ready for task "search"."""

from pathlib import Path

import polars as pl
import pytest

from services.trainer.evaluate.score import Data
from tests.evaluation.datasets import judged


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """As Icecat and Home Depot lie there."""
    for name, ids in (("icecat", "ab"), ("home_depot", "cd")):
        (tmp_path / name).mkdir()
        columns = {"id": list(ids), "title": ["one", "two"]}
        if name == "icecat":
            columns["short_description"] = ["", "second"]
        pl.DataFrame(columns).write_parquet(tmp_path / name / "products.parquet")
    (tmp_path / "icecat" / "qrels.csv").write_text("query,item_id,grade\nq,a,3\nq,b,0\n")
    for split, query in (("train", "r"), ("valid", "s"), ("test", "t")):
        path = tmp_path / "home_depot" / f"qrels_{split}.csv"
        path.write_text(f"query,item_id,grade\n{query},c,3\n{query},d,1\n")
    return tmp_path


def test_a_shop_that_nobody_trains_on_is_there_to_measure_on_alone(data: Path, tmp_path: Path) -> None:
    found = judged.prepared("icecat", data, tmp_path / "prepared")
    assert found.path.name == "icecat"
    assert list(found.report.splits) == ["test"]
    assert [item.description for item in found.items()] == ["", "second"]
    asked = Data(found, "test")
    assert (len(asked.split.queries), asked.popularity) == (1, {})


def test_a_shop_with_splits_keeps_them(data: Path, tmp_path: Path) -> None:
    found = judged.prepared("home_depot", data, tmp_path / "prepared")
    assert {name: counts.queries for name, counts in found.report.splits.items()} == {"train": 1, "valid": 1, "test": 1}


def test_what_is_prepared_is_taken_as_it_is(data: Path, tmp_path: Path) -> None:
    made = judged.prepared("icecat", data, tmp_path / "prepared")
    (data / "icecat" / "qrels.csv").unlink()
    assert judged.prepared("icecat", data, tmp_path / "prepared").content_hash == made.content_hash


def test_one_that_was_stopped_half_way_is_made_again(data: Path, tmp_path: Path) -> None:
    made = judged.prepared("icecat", data, tmp_path / "prepared")
    (made.path / "prepared.json").unlink()
    assert judged.prepared("icecat", data, tmp_path / "prepared").content_hash == made.content_hash


def test_one_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="icecat"):
        judged.prepared("icecat", tmp_path, tmp_path / "prepared")
