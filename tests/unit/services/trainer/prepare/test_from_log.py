"""`prepare` from what shoppers did, and from both."""

import json
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from services.trainer import __main__ as command
from services.trainer.behaviour.archive import Archive
from services.trainer.prepared import PreparedSet, open_prepared
from shared.catalogue import write_jsonl
from shared.items import Item
from tests.support.logged import archive, event, page
from tests.support.simulated_log import Shop

SHOP = Shop(queries=40, candidates=12, shown=6, users=400)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "items.jsonl"
    ids = [SHOP.item_id(query, item) for query in range(SHOP.queries) for item in range(SHOP.candidates)]
    # One of the first query's is not sold any more.
    gone = max(range(SHOP.candidates), key=lambda item: SHOP.relevance[0, item])
    write_jsonl([Item(id=one, title=one) for one in ids if one != SHOP.item_id(0, gone)], path)
    return path


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    made = Archive(folder, file_events=5_000)
    with made.appending() as append:
        for table in SHOP.log(6_000, at_once=1_000):
            append(table, str(table.num_rows))
    return folder


def run(catalogue: Path, out: Path, *arguments: object) -> PreparedSet:
    assert command.main(["prepare", "--catalogue", str(catalogue), "--out", str(out), *map(str, arguments)]) == 0
    return open_prepared(out)


def judged(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["query,item_id,grade", *rows]) + "\n", encoding="utf-8")
    return path


def test_a_set_from_the_log_alone(catalogue: Path, log: Path, tmp_path: Path) -> None:
    prepared = run(catalogue, tmp_path / "out", "--archive", log)
    report = prepared.report.behaviour
    assert report is not None
    assert report.events == Archive(log).events()
    assert prepared.report.sources["behaviour log"] == Archive(log).entry()
    assert report.propensities == pytest.approx(SHOP.propensities, rel=0.25)
    assert report.pairs_dropped["unknown_item"] == 1
    rows = pl.concat([prepared.split(name) for name in ("train", "valid", "test")])
    assert rows.height == report.pairs - sum(report.pairs_dropped.values())
    truth = rows.with_columns(pl.Series("relevance", [SHOP.relevance_of(item) for item in rows["item_id"]]))
    means = truth.group_by("grade").agg(pl.col("relevance").mean()).sort("grade")["relevance"].to_list()
    assert means == sorted(means)
    assert len(means) == 4
    assert not list((tmp_path / "out").glob(".log-*"))


def test_the_same_log_gives_the_same_set(catalogue: Path, log: Path, tmp_path: Path) -> None:
    hashes = {run(catalogue, tmp_path / name, "--archive", log).content_hash for name in ("one", "two")}
    assert len(hashes) == 1


def test_where_people_judged_a_pair_theirs_stands(catalogue: Path, log: Path, tmp_path: Path) -> None:
    alone = run(catalogue, tmp_path / "alone", "--archive", log)
    key, item, grade = alone.split("train").select("key", "item_id", "grade").row(0)
    other = 3 - grade
    path = judged(tmp_path / "j.csv", f"{key.upper()},{item},{other}", f"{key},i39-1,1")
    both = run(catalogue, tmp_path / "both", "--archive", log, "--judgements", path)
    grades = dict(both.split("train").filter(pl.col("key") == key).select("item_id", "grade").iter_rows())
    assert (grades[item], grades["i39-1"]) == (other, 1)
    assert both.report.read == 2
    assert both.report.behaviour is not None
    assert both.report.behaviour.pairs_dropped["judged"] == 1
    assert both.split("test").equals(alone.split("test"))


def test_the_log_trains_what_people_s_judgements_test(
    catalogue: Path, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = judged(tmp_path / "fresh.csv", "a query nobody asked,i1-1,3")
    prepared = run(catalogue, tmp_path / "out", "--archive", log, "--test", fresh)
    assert set(prepared.report.splits) == {"train", "valid", "test"}
    assert prepared.split("test")["key"].to_list() == ["a query nobody asked"]
    assert prepared.split("train").height > prepared.split("valid").height > 0
    key = prepared.split("train")["key"][0]
    leaking = judged(tmp_path / "leaking.csv", f"{key},i1-1,3")
    arguments = ["prepare", "--catalogue", str(catalogue), "--archive", str(log), "--out", str(tmp_path / "leak")]
    assert command.main([*arguments, "--test", str(leaking), "--split-by", "time"]) == 1
    assert "1 in train and test" in capsys.readouterr().err
    assert command.main([*arguments, "--test", str(leaking), "--drop-leaks"]) == 0
    assert key not in open_prepared(tmp_path / "leak").split("train")["key"]


def test_given_splits_gain_the_log_s_pairs_in_train(catalogue: Path, log: Path, tmp_path: Path) -> None:
    train = judged(tmp_path / "train.csv", "a query nobody asked,i1-1,3")
    test = judged(tmp_path / "test.csv", "another,i1-1,3")
    prepared = run(catalogue, tmp_path / "out", "--archive", log, "--train", train, "--test", test)
    assert set(prepared.report.splits) == {"train", "test"}
    assert prepared.split("train")["key"].n_unique() == SHOP.queries + 1


def test_by_time_each_split_is_judged_from_its_own_time(catalogue: Path, tmp_path: Path) -> None:
    """In the first half all of them take the first item shown, in the second half the last."""
    rows = [
        row
        for at in range(2_000)
        for row in (
            page(request_id=str(at), query=f"query {at % 20}", user=f"u{at}", minute=at),
            event(request_id=str(at), query=f"query {at % 20}", user=f"u{at}", minute=at,
                  **({"item_id": "a"} if at < 1_000 else {"item_id": "b", "position": 1})),
        )
    ]  # fmt: skip
    archive(tmp_path / "log", *rows)
    items = tmp_path / "ab.jsonl"
    write_jsonl([Item(id=one, title=one) for one in "ab"], items)
    options = ["--archive", tmp_path / "log", "--position-bias", 0, "--shares", "0.5,0,0.5"]
    prepared = run(items, tmp_path / "time", *options, "--split-by", "time")
    for name, taken in (("train", "a"), ("test", "b")):
        best = prepared.split(name).filter(pl.col("grade") >= 2)
        assert set(best["item_id"]) == {taken}
        assert best["key"].n_unique() == prepared.report.splits[name].queries > 5
    report = prepared.report.behaviour
    assert report is not None
    begins = [datetime.fromisoformat(report.begins[name]) for name in ("train", "test")]
    assert begins[0] < begins[1]
    assert 0.4 < report.dropped["other_time"] / report.events < 0.6
    by_query = run(items, tmp_path / "query", *options)
    # Of the whole time, either was taken by half of who saw it.
    assert by_query.split("train")["grade"].n_unique() == 1


def test_what_was_dropped_is_told_with_its_reason(
    catalogue: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        row
        for at in range(200)
        for row in (
            page(request_id=str(at), user=f"u{at % 50}", item_ids=["i1-0", "i1-1"], minute=at),
            event(request_id=str(at), user=f"u{at % 50}", item_id="i1-0", minute=at),
        )
    ]
    robot = [event(user="robot", request_id="1", minute=at / 1_000) for at in range(600)]
    archive(tmp_path / "log", *rows, *robot, page(request_id="rare", query="my secret"))
    with caplog.at_level("INFO"):
        run(catalogue, tmp_path / "out", "--archive", tmp_path / "log", "--position-bias", 1, "--shares", "1,0,0")
    assert "1,001 events, 601 dropped" in caplog.text
    assert "600 of a visit with more events than a shopper makes" in caplog.text
    assert "1 too few users asked the query" in caplog.text
    assert open_prepared(tmp_path / "out").split("train")["query"].to_list() == ["lamp", "lamp"]
    written = json.loads((tmp_path / "out" / "prepared.json").read_text())["behaviour"]
    assert written["dropped"]["too_many"] == 600
    assert written["propensities_from"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--archive", "nowhere"], "nowhere holds no events: give --events"),
        (["--events", "localhost:1"], "--archive FOLDER"),
        (["--judgements", "j.csv", "--split-by", "time"], "judgements have no time"),
        (["--archive", "nowhere", "--clip", "0"], "--clip: must be above 0"),
        (["--archive", "nowhere", "--top-share", "1"], "--top-share: must be between 0 and 1"),
        (["--archive", "nowhere", "--least-seen", "0"], "--least-seen: must be above 0"),
        (["--archive", "nowhere", "--position-bias", "-1"], "--position-bias: must be 0 or more"),
    ],
)
def test_what_cannot_be_done_is_named(
    catalogue: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["prepare", "--catalogue", str(catalogue), "--out", str(tmp_path / "out"), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_log_that_says_nothing_says_why(catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive(tmp_path / "log", event("VIEW", request_id=None), page(), page(surface="HOME"))
    arguments = ["--archive", str(tmp_path / "log"), "--catalogue", str(catalogue), "--out", str(tmp_path / "out")]
    assert command.main(["prepare", *arguments]) == 1
    said = capsys.readouterr().err
    assert "Of 3 events" in said
    assert "1: too few users asked the query" in said


def test_too_little_to_learn_from_can_be_allowed(
    catalogue: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For runs by the clock: each kind of too little ends well, with the set that retrain learns nothing from."""
    archive(tmp_path / "rare", event("VIEW", request_id=None), page())
    pages = [page(request_id=str(at), user=f"u{at}", item_ids=["i1-0", "i1-1"]) for at in range(6)]
    archive(tmp_path / "seldom", *pages, event(request_id="1", user="u1", item_id="i1-0"))
    caplog.set_level("INFO")
    for name, options, why in (
        ("none", [], "none holds no events: give --events"),
        ("rare", [], "1: too few users asked the query. Wait for more: what is learnt from are pages that a search"),
        ("seldom", [], "were taken 0 times, and 200 are needed"),
        ("seldom", ["--position-bias", "0"], "none of 2 pairs of a query and an item was seen 10 times"),
        ("seldom", ["--position-bias", "0", "--least-seen", "1"], "nothing is left for"),
    ):
        arguments = ["--archive", str(tmp_path / name), *options, "--out", str(tmp_path / "out")]
        assert command.main(["prepare", "--catalogue", str(catalogue), *arguments]) == 1
        prepared = run(catalogue, tmp_path / "out", "--archive", tmp_path / name, *options, "--allow-empty")
        assert why in caplog.text
        assert prepared.report.splits == {}


def test_what_people_judged_stands_beside_a_log_that_says_nothing_yet(catalogue: Path, tmp_path: Path) -> None:
    file = judged(tmp_path / "j.csv", "lamp,i1-0,3", "lamp,i1-1,0")
    log = ["--archive", tmp_path / "none", "--allow-empty", "--shares", "1,0,0"]
    assert run(catalogue, tmp_path / "out", *log, "--judgements", file).split("train").height == 2


def test_a_setting_may_be_empty(catalogue: Path, tmp_path: Path) -> None:
    prepared = run(catalogue, tmp_path / "out", "--archive=", "--events=", "--judgements=")
    assert (prepared.report.behaviour, prepared.report.splits) == (None, {})


def test_the_help_shows_how(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["prepare", "--help"])
    shown = capsys.readouterr().out
    assert "--events localhost:50056 --archive build/log" in shown
    assert "default 5" in shown
