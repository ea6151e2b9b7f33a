import json
import math
from pathlib import Path

import pytest

from services.trainer.errors import JobError
from services.trainer.prepare.job import PrepareOptions, prepare
from services.trainer.validation import BUILT_IN, read_means, read_validation, validation_of
from shared.bundles import DEFAULT_TEMPLATE, render
from tests.support.judged_shop import make_prepared, write_files


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


def test_a_set_with_too_few_pairs_leaves_a_model_to_the_built_in_ones(tmp_path: Path) -> None:
    enough = make_prepared(tmp_path)
    assert validation_of(enough) == enough.path
    catalogue, judgements = write_files(tmp_path)
    shares = {"train": 0.9, "valid": 0.1}
    few = prepare(PrepareOptions(catalogue, tmp_path / "few", judgements=[judgements], shares=shares))
    assert validation_of(few) == BUILT_IN


def test_a_mean_that_is_no_number_is_not_carried_on(tmp_path: Path) -> None:
    told = {"measures": {"ndcg@10": {"mean": 0.5}, "judged ndcg@10": {"mean": math.nan}}}
    kinds = {"roc_auc": 0.7, "average_precision": 0.6, "f1": 0.5}
    (tmp_path / "evaluation.json").write_text(json.dumps({"model": {**told, "classification": kinds}}))
    assert read_means(tmp_path / "evaluation.json") == {"ndcg@10": 0.5, **kinds}


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
