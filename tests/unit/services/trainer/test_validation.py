from pathlib import Path

import pytest

from services.trainer.errors import JobError
from services.trainer.validation import BUILT_IN, read_validation
from shared.bundles import DEFAULT_TEMPLATE, render
from tests.support.judged_shop import make_prepared


def test_the_built_in_pairs_are_enough_and_distinct() -> None:
    pairs = read_validation(BUILT_IN, DEFAULT_TEMPLATE)
    assert len(pairs.queries) >= 40
    assert len(set(pairs.texts)) == len(pairs.texts)


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"query": "a"}\n', ":1: want"), ("nonsense\n", ":1: want"), ('{"query": "a", "positive": "b"}\n', "1 pairs")],
)
def test_a_bad_validation_file_is_named_by_its_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(content)
    with pytest.raises(JobError, match=message):
        read_validation(tmp_path / "pairs.jsonl", DEFAULT_TEMPLATE)
    with pytest.raises(JobError, match="no such file"):
        read_validation(tmp_path / "none.jsonl", DEFAULT_TEMPLATE)


def test_a_shops_own_pairs_are_held_out_queries_with_their_best_item(tmp_path: Path) -> None:
    prepared = make_prepared(tmp_path)
    pairs = read_validation(prepared.path, DEFAULT_TEMPLATE)
    judged = prepared.split("valid")
    items = {render(DEFAULT_TEMPLATE, item): item.id for item in prepared.items()}
    assert 10 <= len(pairs.queries) == len(pairs.positives) <= 50
    assert len(set(pairs.queries)) == len(pairs.queries)
    for query, text in zip(pairs.queries, pairs.positives, strict=True):
        grades = dict(judged.filter(judged["query"] == query).select("item_id", "grade").iter_rows())
        assert grades[items[text]] == max(grades.values()) >= prepared.report.grades.relevant
    assert pairs.digest == prepared.content_hash
