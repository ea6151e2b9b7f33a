import numpy as np
import polars as pl
import pytest

from services.trainer.behaviour.grading import grade, seen, top_value, value
from services.trainer.behaviour.propensity import Propensities
from services.trainer.prepared import Grades

GRADES = Grades(lowest=0, highest=3, relevant=2)
PLACES = [("lamp", "lamp", "a", 0, 10, 4.0), ("lamp", "lamp", "a", 2, 40, 1.0), ("lamp", "lamp", "b", 2, 8, 1.0)]


def test_an_item_is_seen_as_often_as_its_places_are_and_at_least_by_the_clip() -> None:
    counts = pl.DataFrame(PLACES, schema=["key", "query", "item_id", "place", "shown", "weight"], orient="row")
    chances = Propensities(np.array([1.0, 0.5, 0.01]), 3, 1)
    found = seen(counts, chances, clip=0.25).sort("item_id")
    assert found.select("item_id", "seen", "weight").rows() == [("a", 20.0, 5.0), ("b", 2.0, 1.0)]


def test_what_was_seen_little_is_near_the_average() -> None:
    rows = pl.DataFrame({"seen": [0.0, 10.0, 1e6], "weight": [0.0, 10.0, 1e6]}).with_columns(value(0.2, 10))
    assert rows["value"].to_list() == pytest.approx([0.2, 0.6, 1.0], abs=1e-4)


def test_a_grade_s_gain_goes_with_the_value() -> None:
    # Gains are 0, 1, 3 and 7.
    values = pl.DataFrame({"value": [0.0, 0.99, 1.0, 2.99, 3.0, 6.99, 7.0, 70.0]})
    assert values.select(grade(7.0, GRADES))["grade"].to_list() == [0, 0, 1, 1, 2, 2, 3, 3]
    other = Grades(lowest=1, highest=2.5, relevant=2)
    assert values.select(grade(7.0, other))["grade"].to_list() == [1, 1, 1, 1, 1, 2, 2, 2.5]
    assert values.with_columns(grade(0.0, GRADES))["grade"].to_list() == [0] * 8


def test_the_best_share_has_the_highest_grade() -> None:
    values = pl.DataFrame({"value": np.linspace(0, 2, 101)})
    top = top_value(values["value"], 0.1)
    assert values.select(grade(top, GRADES))["grade"].to_list().count(3) == 11
    assert top_value(values["value"].clear(), 0.1) == 0
