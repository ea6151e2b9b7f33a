import contextlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.trainer.behaviour.archive import SCHEMA, Archive
from services.trainer.errors import JobError
from tests.support.logged import event


def rows(*items: str) -> pa.Table:
    return pa.Table.from_pylist([dict(event(item_id=item)) for item in items], SCHEMA)


def items(archive: Archive) -> list[list[str]]:
    return [pq.read_table(file)["item_id"].to_pylist() for file in archive.files]


def test_a_later_run_goes_on_with_a_file_that_is_not_full(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "log", file_events=3)
    assert (archive.cursor, archive.events()) == ("", 0)
    with archive.appending() as append:
        append(rows("a", "b"), "2")
    with archive.appending() as append:
        append(rows("c", "d"), "4")
        append(rows("e"), "5")
    assert items(archive) == [["a", "b", "c", "d"], ["e"]]
    assert (archive.cursor, archive.events()) == ("5", 5)


def test_what_came_before_a_failure_is_kept(tmp_path: Path) -> None:
    archive = Archive(tmp_path, file_events=100)
    with contextlib.suppress(RuntimeError), archive.appending() as append:
        append(rows("a"), "1")
        raise RuntimeError
    assert (archive.cursor, archive.events()) == ("1", 1)


def test_a_killed_run_loses_its_unfinished_file_alone(tmp_path: Path) -> None:
    archive = Archive(tmp_path, file_events=2)
    opened = archive.appending()
    append = opened.__enter__()
    append(rows("a", "b"), "2")
    append(rows("c"), "3")
    # Nothing is closed or flushed: what a kill leaves.
    assert items(archive) == [["a", "b"]]
    assert archive.cursor == "2"
    opened.__exit__(None, None, None)


def test_a_cursor_without_events_writes_nothing(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    with archive.appending() as append:
        append(rows(), "7")
    assert archive.files == []


def test_two_runs_do_not_write_at_once(tmp_path: Path) -> None:
    with (
        Archive(tmp_path).appending(),
        pytest.raises(JobError, match="being written by another run"),
        Archive(tmp_path).appending(),
    ):
        pass


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    with archive.appending() as append:
        append(rows("a"), "1")
    archive.files[0].write_bytes(b"PAR1")
    with pytest.raises(JobError, match=r"events-000000\.parquet is damaged"):
        archive.events()
    pq.write_table(pa.table({"x": [1]}), archive.files[0])
    with pytest.raises(JobError, match="holds no cursor"):
        _ = archive.cursor


def test_the_same_events_have_the_same_hash(tmp_path: Path) -> None:
    entries = []
    for name, held in (("one", "a"), ("two", "a"), ("three", "b")):
        archive = Archive(tmp_path / name)
        with archive.appending() as append:
            append(rows(held), "1")
        entries.append(archive.entry())
    assert entries[0] == entries[1] != entries[2]
