import polars as pl
import pytest

from services.trainer.finetune.data import Texts, read_judgements
from services.trainer.prepared import Grades
from services.trainer.rerank.data import lists_dataset, pairs_dataset, random_items, ranked_lists
from shared.bundles import DEFAULT_TEMPLATE, Prompts

GRADES = Grades(lowest=1, highest=3, relevant=2.5)
TEXTS = Texts(DEFAULT_TEMPLATE, Prompts())
ITEMS = {name: f"item {name}" for name in "abcdefgh"}
FRAME = pl.DataFrame(
    [("q1", "Q1", "a", 3.0), ("q1", "Q1", "b", 1.5), ("q2", "Q2", "c", 2.0)],
    schema=["key", "query", "item_id", "grade"],
    orient="row",
)
JUDGED = read_judgements(FRAME, 2.5, 0, seed=0)


def test_unjudged_items_are_nobodys_choice() -> None:
    found = random_items(JUDGED, sorted(ITEMS), 3, seed=0)
    assert {key: len(ids) for key, ids in found.items()} == {"q1": 3, "q2": 3}
    assert not {"a", "b"} & set(found["q1"])
    assert found == random_items(JUDGED, sorted(ITEMS), 3, seed=0)


def test_labels_are_grades_between_zero_and_one() -> None:
    lists = ranked_lists(JUDGED, {"q1": ["h"], "q2": []}, TEXTS, ITEMS, GRADES)
    assert lists[0].item_ids == ["a", "b", "h"]
    assert lists[0].labels == pytest.approx([1.0, 0.25, 0.0])
    assert lists[1].labels == pytest.approx([0.5])


def test_the_two_shapes_hold_the_same() -> None:
    lists = ranked_lists(JUDGED, {"q1": ["h"], "q2": []}, TEXTS, ITEMS, GRADES)
    pairs, whole = pairs_dataset(lists), lists_dataset(lists)
    assert len(pairs) == 4
    assert [row["item"] for row in pairs] == [text for texts in whole["items"] for text in texts]
    assert whole.column_names == ["query", "items", "labels"]
