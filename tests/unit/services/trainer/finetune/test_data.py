from math import log

import polars as pl
import pytest

from services.trainer.finetune.data import (
    Texts,
    graded_dataset,
    judged_negatives,
    log_chances,
    ranking_dataset,
    read_judgements,
)
from services.trainer.finetune.options import FinetuneOptions
from services.trainer.prepared import Grades
from shared.bundles import DEFAULT_TEMPLATE, Prompts

GRADES = Grades(lowest=0, highest=3, relevant=2)
TEXTS = Texts(DEFAULT_TEMPLATE, Prompts(query="query: ", item="item: "))
ITEMS = {name: f"item: {name}" for name in "abcdz"}
FRAME = pl.DataFrame(
    [("q1", "Q1", "a", 3.0), ("q1", "Q1", "b", 2.0), ("q1", "Q1", "c", 0.0), ("q2", "Q2", "a", 2.0)],
    schema=["key", "query", "item_id", "grade"],
    orient="row",
)
JUDGED = read_judgements(FRAME, 2.0, 0, seed=0)


def options(**changes: object) -> FinetuneOptions:
    from pathlib import Path

    return FinetuneOptions(data=Path(), out=Path(), **changes)  # type: ignore[arg-type]


def test_rows_read_as_serving_writes_them_and_weigh_their_gain() -> None:
    data = ranking_dataset(JUDGED, None, TEXTS, ITEMS, GRADES, options())
    assert data.column_names == ["anchor", "positive", "label"]
    assert data[0]["anchor"] == "query: Q1"
    assert data[0]["positive"] == "item: a"
    assert [row[0] for row in data["label"]] == [7.0, 3.0, 3.0]
    # The item a is in two of three places, b in one.
    assert [row[1] for row in data["label"]] == pytest.approx([log(2 / 3), log(1 / 3), log(2 / 3)])


def test_corrections_can_be_left_out() -> None:
    plain = options(grade_weights=False, correct_popularity=False)
    data = ranking_dataset(JUDGED, ["c", "c", "z"], TEXTS, ITEMS, GRADES, plain)
    assert data.column_names == ["anchor", "positive", "negative", "label"]
    assert data["label"][:] == [[1.0, 0.0, 0.0]] * 3


def test_a_judged_negative_is_bad_for_its_own_query() -> None:
    negatives = judged_negatives(JUDGED, GRADES, ["z"], seed=0)
    assert negatives == ["c", "c", "z"]


def test_fewer_queries_are_a_part_of_more() -> None:
    rows = [(f"q{at}", f"q{at}", "a", 3.0) for at in range(50)]
    frame = pl.DataFrame(rows, schema=FRAME.schema, orient="row")
    few, more = (set(read_judgements(frame, 2.0, count, seed=0).queries) for count in (10, 20))
    assert len(few) == 10
    assert few < more


def test_grades_become_scores() -> None:
    data = graded_dataset(JUDGED, TEXTS, ITEMS, GRADES)
    assert data["score"][:] == pytest.approx([1.0, 2 / 3, 0.0, 2 / 3])
    assert data[2]["sentence2"] == "item: c"


def test_chances_add_up_to_one() -> None:
    chances = log_chances([["a", "b", "a"], ["c", "a", "b"]])
    assert sum(2.718281828459045**value for value in chances.values()) == pytest.approx(1)
