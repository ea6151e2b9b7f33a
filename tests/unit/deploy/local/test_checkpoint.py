"""What a killed import leaves behind, and when the next one may go on from it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.checkpoint import EVERY_S, Checkpoint, Done, Work
from deploy.local.errors import LocalError
from shared.catalogue import Rejections
from shared.catalogue.rejections import Reason

WORK = Work("/data/shop.csv", "c0ffee", "id=sku", "/mesh/indexes/shop/milvus.db")
HALF = Done(500, 480, Rejections({"title: must not be empty": Reason(20, ["line 7", "line 9", "line 12"])}), "sku-500")

texts = st.text(max_size=20)
counts = st.integers(1, 10**9)
reasons = st.dictionaries(texts, st.builds(Reason, counts, st.lists(texts, min_size=1, max_size=3)), max_size=4)
dones = st.builds(Done, counts, st.integers(0, 10**9), st.builds(Rejections, reasons), texts)


def checkpoint(
    folder: Path, work: Work = WORK, generation: Callable[[], str | None] = lambda: "g1 model-1"
) -> Checkpoint:
    return Checkpoint(folder, work, generation)


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert checkpoint(tmp_path).find() == (None, "")
    checkpoint(tmp_path).remove()


@given(done=dones, mapping=texts, content=texts)
def test_it_comes_back_as_it_was_written(done: Done, mapping: str, content: str) -> None:
    work = replace(WORK, mapping=mapping, content=content)
    with TemporaryDirectory() as folder:
        checkpoint(Path(folder), work).save(done)
        found, told = checkpoint(Path(folder), work).find()
        assert found == done
        assert told == f"resuming after row {done.rows:,} of /data/shop.csv"
        checkpoint(Path(folder), work).remove()
        assert checkpoint(Path(folder), work).find() == (None, "")
        assert list((Path(folder) / "imports").iterdir()) == []


@pytest.mark.parametrize("field", ["catalogue", "mapping", "destination"])
def test_other_work_has_another_file(tmp_path: Path, field: str) -> None:
    other = replace(WORK, **{field: "another"})
    checkpoint(tmp_path).save(HALF)
    assert checkpoint(tmp_path, other).find() == (None, "")
    checkpoint(tmp_path, other).save(replace(HALF, rows=7))
    found, _ = checkpoint(tmp_path).find()
    assert found == HALF


def test_a_changed_file_starts_from_the_beginning_and_says_so(tmp_path: Path) -> None:
    checkpoint(tmp_path).save(HALF)
    found, told = checkpoint(tmp_path, replace(WORK, content="decaf")).find()
    assert found is None
    assert told == "/data/shop.csv has changed since row 500: starting from the beginning"


@pytest.mark.parametrize("now", ["g2 model-1", "g1 model-2", ""])
def test_another_index_starts_from_the_beginning_and_says_so(tmp_path: Path, now: str) -> None:
    checkpoint(tmp_path).save(HALF)
    found, told = checkpoint(tmp_path, generation=lambda: now).find()
    assert found is None
    assert "the index is another than at row 500" in told


def test_an_index_that_does_not_answer_costs_no_work_done(tmp_path: Path) -> None:
    checkpoint(tmp_path).save(HALF)
    with pytest.raises(LocalError, match="make status"):
        checkpoint(tmp_path, generation=lambda: None).find()
    assert checkpoint(tmp_path).find()[0] == HALF


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format": 0}', '{"format": 1, "rows": 5}'])
def test_a_file_that_cannot_be_read_starts_from_the_beginning(tmp_path: Path, content: str) -> None:
    kept = checkpoint(tmp_path)
    kept.save(HALF)
    kept.path.write_text(content)
    found, told = checkpoint(tmp_path).find()
    assert found is None
    assert "cannot be read" in told


def test_nothing_done_is_not_written(tmp_path: Path) -> None:
    checkpoint(tmp_path).save(Done())
    assert not (tmp_path / "imports").exists()


def test_it_is_written_at_the_first_acknowledgement_then_once_a_second_and_at_the_end(tmp_path: Path) -> None:
    now = 100.0
    kept = Checkpoint(tmp_path, WORK, lambda: "g1", clock=lambda: now)

    def written() -> int:
        return int(json.loads(kept.path.read_text())["rows"])

    kept.note(Done(rows=1))
    assert written() == 1
    now += EVERY_S * 0.9
    kept.note(Done(rows=2))
    assert written() == 1
    now += EVERY_S * 0.2
    kept.note(Done(rows=3))
    assert written() == 3
    kept.save(Done(rows=4))
    assert written() == 4


def test_the_generation_is_the_one_that_the_first_write_made(tmp_path: Path) -> None:
    answers = iter([None, "g1"])
    kept = checkpoint(tmp_path, generation=lambda: next(answers))
    kept.save(HALF)
    assert not kept.path.exists(), "not known yet which index this is of"
    kept.save(HALF)
    kept.save(replace(HALF, rows=600))
    assert json.loads(kept.path.read_text())["generation"] == "g1"
