import contextlib
import weakref
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.trainer.behaviour.archive import SCHEMA, Archive
from services.trainer.errors import JobError
from tests.support.logged import START, event
from tests.support.logged import archive as archive_of


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


def test_pages_without_events_are_not_kept_in_memory(tmp_path: Path) -> None:
    page = rows()
    held = weakref.ref(page)
    with Archive(tmp_path).appending() as append:
        append(page, "7")
        del page
        assert held() is None


def test_two_runs_do_not_write_at_once(tmp_path: Path) -> None:
    with (
        Archive(tmp_path).appending(),
        pytest.raises(JobError, match="is another run's"),
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


def minute(number: int) -> int:
    """Microseconds since 1970."""
    return int(START.timestamp() * 1e6) + number * 60_000_000


def test_what_arrived_before_a_user_is_known_goes_and_all_else_stays_in_its_place(tmp_path: Path) -> None:
    acts = [("a", "gone"), ("b", "back"), ("c", None), ("d", "stays"), ("e", "back"), ("f", "gone"), ("g", "not asked")]
    rows = [event(item_id=item, user=user, minute=at) for at, (item, user) in enumerate(acts)]
    archive = archive_of(tmp_path, *rows[:4], file_events=4)
    with archive.appending() as append:
        append(pa.Table.from_pylist([dict(row) for row in rows[4:]], SCHEMA), "the end")
    assert archive.users() == [b"back", b"gone", b"not asked", b"stays"]
    known = {b"gone": None, b"back": minute(4), b"stays": minute(3), b"nobody": None}
    assert archive.forget(known) == 3
    assert items(archive) == [["c", "d"], ["e", "g"]]
    assert archive.cursor == "the end"
    assert pq.read_table(archive.files[0]).schema.remove_metadata() == SCHEMA
    before = archive.entry()
    assert archive.forget(known) == archive.forget({}) == 0
    assert archive.entry() == before


def test_an_archive_of_forgotten_users_alone_goes_on_behind_what_it_had(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, event(user="gone"), file_events=4)
    assert archive.forget({b"gone": None}) == 1
    assert (archive.cursor, archive.events()) == ("after 1", 0)
    with archive.appending() as append:
        append(rows("b"), "2")
    assert items(archive) == [["b"]]


def test_nothing_is_forgotten_while_another_run_writes(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, event(user="gone"))
    with archive.appending(), pytest.raises(JobError, match="is another run's"):
        archive.forget({b"gone": None})
    assert archive.events() == 1
