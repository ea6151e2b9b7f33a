from pathlib import Path

import pytest

from services.trainer.errors import JobError
from services.trainer.validation import BUILT_IN, read_validation


def test_the_built_in_pairs_are_enough_and_distinct() -> None:
    pairs = read_validation(BUILT_IN)
    assert len(pairs.queries) >= 40
    assert len(set(pairs.texts)) == len(pairs.texts)


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"query": "a"}\n', ":1: want"), ("nonsense\n", ":1: want"), ('{"query": "a", "positive": "b"}\n', "1 pairs")],
)
def test_a_bad_validation_file_is_named_by_its_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(content)
    with pytest.raises(JobError, match=message):
        read_validation(tmp_path / "pairs.jsonl")
    with pytest.raises(JobError, match="no such file"):
        read_validation(tmp_path / "none.jsonl")
