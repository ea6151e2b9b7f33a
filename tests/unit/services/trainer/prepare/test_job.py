import json
from pathlib import Path

import pytest

from services.trainer import __main__ as command
from services.trainer.errors import JobError
from services.trainer.evaluate.measures import MEASURES, per_query
from services.trainer.prepare.items import read_items, write_items
from services.trainer.prepare.job import PrepareOptions, prepare
from services.trainer.prepared import MOST_GRADES, Grades, open_prepared
from shared.catalogue import write_jsonl
from shared.items import Attribute, Item

ITEMS = [
    Item(
        id=f"i{at}",
        title=f"desk {at}",
        brand="nord",
        category_path=("furniture", "desks"),
        tags=("oak",),
        attributes={"width": Attribute(numbers=(1.2,)), "colour": Attribute(text=("red", "blue"))},
    )
    for at in range(30)
]


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    write_jsonl(ITEMS, tmp_path / "items.jsonl")
    return tmp_path / "items.jsonl"


def judgements(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["query,item_id,grade", *rows]) + "\n", encoding="utf-8")
    return path


def test_items_keep_what_a_template_may_read(catalogue: Path, tmp_path: Path) -> None:
    counts = write_items(catalogue, None, tmp_path / "items.parquet")
    assert (counts.items, counts.rejected, counts.duplicates) == (30, 0, 0)
    assert list(read_items(tmp_path / "items.parquet")) == ITEMS


def test_of_two_rows_with_one_id_the_later_stands(tmp_path: Path) -> None:
    write_jsonl([*ITEMS[:2], Item(id="i0", title="new desk")], tmp_path / "items.jsonl")
    counts = write_items(tmp_path / "items.jsonl", None, tmp_path / "items.parquet")
    assert (counts.items, counts.duplicates) == (2, 1)
    assert [item.title for item in read_items(tmp_path / "items.parquet")] == ["desk 1", "new desk"]


@pytest.mark.parametrize(
    ("grades", "told"),
    [
        ((0, 100, 60), "--lowest 0 --highest 100: want --highest above --lowest, by at most 20"),
        ((1, 1, 1), "--lowest 1 --highest 1: want"),
        ((0, 3, 4), "--relevant 4: want"),
        ((1, 3, 1), "--relevant 1: want"),
    ],
)
def test_a_scale_that_cannot_be_measured_by_is_refused(
    catalogue: Path, tmp_path: Path, grades: tuple[float, float, float], told: str
) -> None:
    lowest, highest, relevant = grades
    scale = Grades(lowest=lowest, highest=highest, relevant=relevant)
    with pytest.raises(JobError, match=told):
        prepare(PrepareOptions(catalogue, tmp_path / "out", grades=scale))
    assert not (tmp_path / "out").exists()


def test_the_widest_scale_is_measured_by() -> None:
    scale = Grades(lowest=0, highest=MOST_GRADES, relevant=10)
    judged = {"desk": {"a": 20.0, "b": 12.0, "c": 10.0}}
    found = per_query(judged, {"desk": {"a": 3.0, "b": 2.0, "c": 1.0}}, scale)
    assert {name: values["desk"] for name, values in found.items()} == dict.fromkeys(MEASURES, 1.0)


def test_a_set_is_split_reported_and_opened(catalogue: Path, tmp_path: Path) -> None:
    rows = [f"query {at % 10},i{at},{at % 4}" for at in range(30)]
    path = judgements(tmp_path / "all.csv", *rows, "query 1,nowhere,3")
    made = prepare(PrepareOptions(catalogue, tmp_path / "out", judgements=[path], shares={"train": 0.5, "test": 0.5}))
    opened = open_prepared(tmp_path / "out")
    assert opened.report == made.report
    assert opened.report.dropped["unknown_item"] == 1
    assert sum(split.judgements for split in opened.report.splits.values()) == 30
    assert opened.split("train").columns == ["key", "query", "item_id", "grade"]
    assert len(list(opened.items())) == 30
    with pytest.raises(JobError, match="no split valid"):
        opened.split("valid")


def test_the_same_data_has_the_same_hash(catalogue: Path, tmp_path: Path) -> None:
    path = judgements(tmp_path / "all.csv", *[f"query {at},i{at},{at % 4}" for at in range(30)])
    hashes = {
        prepare(PrepareOptions(catalogue, tmp_path / name, judgements=[path], seed=seed)).content_hash
        for name, seed in (("one", 0), ("two", 0))
    }
    other = prepare(PrepareOptions(catalogue, tmp_path / "three", judgements=[path], seed=5)).content_hash
    assert len(hashes) == 1
    assert other not in hashes


def test_given_splits_stay_as_they_are_and_leaks_end_the_job(catalogue: Path, tmp_path: Path) -> None:
    train = judgements(tmp_path / "train.csv", "oak desk,i1,3", "lamp,i2,2")
    test = judgements(tmp_path / "test.csv", "Oak Desk,i3,3", "chair,i4,1")
    options = PrepareOptions(catalogue, tmp_path / "out", splits={"train": train, "test": test})
    with pytest.raises(JobError, match="1 in train and test"):
        prepare(options)
    assert not (tmp_path / "out" / "prepared.json").exists()
    arguments = ["--catalogue", str(catalogue), "--train", str(train), "--test", str(test), "--drop-leaks"]
    assert command.main(["prepare", *arguments, "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert report["dropped"]["leak"] == 1
    assert report["splits"]["test"]["judgements"] == 2


@pytest.mark.parametrize("arguments", [["--train", "a.csv", "--judgements", "b.csv"], ["--test", "a.csv"]])
def test_judgements_come_one_way(
    catalogue: Path, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["prepare", "--catalogue", str(catalogue), "--out", str(tmp_path / "out"), *arguments]) == 1
    assert "--train" in capsys.readouterr().err


def test_a_catalogue_alone_can_be_prepared(catalogue: Path, tmp_path: Path) -> None:
    assert command.main(["prepare", "--catalogue", str(catalogue), "--out", str(tmp_path / "out")]) == 0
    opened = open_prepared(tmp_path / "out")
    assert len(list(opened.items())) == 30
    assert opened.report.splits == {}
    with pytest.raises(JobError, match="which only the job pretrain learns from"):
        opened.split("train")


def test_a_set_can_be_there_to_measure_on_alone(catalogue: Path, tmp_path: Path) -> None:
    path = judgements(tmp_path / "all.csv", "a,i1,1", "b,i2,3")
    arguments = ["--judgements", str(path), "--catalogue", str(catalogue), "--shares", "0,0,1"]
    assert command.main(["prepare", "--out", str(tmp_path / "out"), *arguments]) == 0
    opened = open_prepared(tmp_path / "out")
    assert {name: split.queries for name, split in opened.report.splits.items()} == {"test": 2}
    with pytest.raises(JobError, match="has no split train; it has test"):
        opened.split("train")


def test_bad_arguments_are_named(catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(judgements(tmp_path / "all.csv", "a,i1,1"))
    base = ["prepare", "--out", str(tmp_path / "out"), "--judgements", path, "--catalogue"]
    assert command.main([*base, str(catalogue), "--shares", "1,x"]) == 1
    assert "--shares 1,x" in capsys.readouterr().err
    assert command.main([*base, str(catalogue), "--shares", "0,0,0"]) == 1
    assert "--shares 0,0,0" in capsys.readouterr().err
    assert command.main([*base, str(tmp_path / "none.csv")]) == 1
    assert "there is no such file" in capsys.readouterr().err


def test_a_changed_file_is_noticed(catalogue: Path, tmp_path: Path) -> None:
    path = judgements(tmp_path / "all.csv", *[f"query {at},i{at},{at % 4}" for at in range(30)])
    prepare(PrepareOptions(catalogue, tmp_path / "out", judgements=[path]))
    (tmp_path / "out" / "train.parquet").write_bytes(b"")
    with pytest.raises(JobError, match=r"train\.parquet is not what"):
        open_prepared(tmp_path / "out")
    with pytest.raises(JobError, match="make it with"):
        open_prepared(tmp_path)


def test_gain_grows_with_the_grade() -> None:
    grades = Grades(lowest=1, highest=3, relevant=2.67)
    assert grades.gain(1) == 0
    assert grades.gain(3) == pytest.approx(3)
