"""A file through a gateway: order, acknowledgements, refusals, and an end that says how far it came."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.local import ingest
from deploy.local.checkpoint import Checkpoint, Done, Work
from deploy.local.errors import LocalError
from deploy.local.ingest import Progress
from tests.support.import_gateway import ImportGateway as Gateway
from tests.support.import_gateway import served


def catalogue(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "shop.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(path: Path, target: str, mapping: str = "") -> tuple[Progress, list[float]]:
    fractions: list[float] = []
    seen: list[str] = []
    progress = ingest.ingest(
        path, mapping, target, lambda progress: fractions.append(progress.fraction), lambda item: seen.append(item.id)
    )
    assert len(seen) >= progress.done.accepted
    return progress, fractions


def test_everything_arrives_in_batches_and_the_bar_only_grows(tmp_path: Path) -> None:
    gateway = Gateway()
    rows: list[dict[str, object]] = [{"id": str(i), "title": f"thing {i}"} for i in range(300)]
    with served(gateway) as target:
        progress, fractions = load(catalogue(tmp_path, rows), target)
    assert gateway.batches == [128, 128, 44]
    assert gateway.titles == {str(i): f"thing {i}" for i in range(300)}
    assert (progress.done.rows, progress.done.accepted, progress.done.rejections.total) == (300, 300, 0)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_long_items_make_smaller_batches(tmp_path: Path) -> None:
    gateway = Gateway()
    rows: list[dict[str, object]] = [{"id": str(i), "title": "t", "description": "x" * 19_000} for i in range(128)]
    with served(gateway) as target:
        load(catalogue(tmp_path, rows), target)
    assert max(gateway.batches) * 19_000 <= ingest.BATCH_BYTES
    assert sum(gateway.batches) == 128


def test_bad_rows_are_told_with_line_and_reason_by_whoever_refuses_them(tmp_path: Path) -> None:
    gateway = Gateway()
    rows: list[dict[str, object]] = [{"id": "1", "title": "one"}, {"id": "2"}, {"id": "3", "title": "refused"}]
    with served(gateway) as target:
        progress, _ = load(catalogue(tmp_path, rows), target)
    assert (progress.done.rows, progress.done.accepted, progress.done.rejections.total) == (3, 1, 2)
    assert list(progress.done.rejections.lines()) == [
        "1 × title: must not be empty (line 2)",
        "1 × title: is not wanted (item '3')",
    ]


def test_the_last_of_two_rows_with_one_id_stands(tmp_path: Path) -> None:
    gateway = Gateway()
    rows: list[dict[str, object]] = [
        {"id": "1", "title": "old"},
        {"id": "2", "title": "x"},
        {"id": "1", "title": "new"},
    ]
    with served(gateway) as target:
        progress, _ = load(catalogue(tmp_path, rows), target)
    assert gateway.titles == {"1": "new", "2": "x"}
    assert (progress.done.rows, progress.done.accepted) == (3, 2)


def test_columns_are_mapped(tmp_path: Path) -> None:
    gateway = Gateway()
    with served(gateway) as target:
        load(catalogue(tmp_path, [{"code": "1", "label": "one"}]), target, "id=code,title=label")
    assert gateway.titles == {"1": "one"}


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_an_import_that_is_cut_off_says_how_far_it_came(tmp_path: Path, fails_at: int) -> None:
    rows: list[dict[str, object]] = [{"id": str(i), "title": f"thing {i}"} for i in range(600)]
    with served(Gateway(fails_at)) as target, pytest.raises(LocalError) as stopped:
        load(catalogue(tmp_path, rows), target)
    assert f"stopped after {fails_at * 128:,} items, at row {fails_at * 128:,}:" in str(stopped.value)
    assert "Run it again" in str(stopped.value)


def test_no_gateway_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="stopped after 0 items, at row 0: the gateway is not available"):
        load(catalogue(tmp_path, [{"id": "1", "title": "one"}]), "127.0.0.1:1")


@pytest.mark.parametrize(("rows", "what"), [([], "holds no rows"), ([{"id": "1", "title": ""}], "none of 1 rows")])
def test_a_file_without_a_usable_row_is_an_error(tmp_path: Path, rows: list[dict[str, object]], what: str) -> None:
    with served(Gateway()) as target, pytest.raises(LocalError, match=what):
        load(catalogue(tmp_path, rows), target)


ROWS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"id": st.integers(0, 30).map(str), "title": st.sampled_from(["a", "b", "refused"])}),
        st.just({"id": "x"}),
    ),
    min_size=1,
    max_size=40,
)


def keeper(folder: Path) -> Checkpoint:
    return Checkpoint(folder, Work("shop.jsonl", "content", "", "index"), lambda: "1")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, fails_at=st.integers(0, 12))
def test_an_import_that_was_cut_off_and_resumed_ends_like_one_that_was_not(
    rows: list[dict[str, object]], fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "BATCH_ITEMS", 3)
    rows = [{"id": "first", "title": "something"}, *rows]
    path = catalogue(tmp_path, rows)
    once, twice = Gateway(), Gateway(fails_at)
    with served(once) as target:
        whole, _ = load(path, target)
    keeper(tmp_path).remove()
    seen: list[str] = []
    with served(twice) as target:
        try:
            ingest.ingest(path, "", target, lambda _: None, lambda _: None, keeper(tmp_path))
        except LocalError:
            done, _ = keeper(tmp_path).find()
            twice.fails_at = None
            sent = sum(twice.batches)
            resumed = ingest.ingest(
                path, "", target, lambda _: None, lambda item: seen.append(item.id), keeper(tmp_path), done
            )
            assert resumed.done == whole.done
            assert twice.batches == once.batches, "nothing was sent twice"
            assert sum(twice.batches) == sum(once.batches)
            assert resumed.before + sum(twice.batches) - sent >= resumed.done.accepted
            assert seen == [str(row["id"]) for row in rows if "title" in row], "what is learned is of the whole file"
        else:
            assert len(once.batches) <= fails_at
    assert twice.titles == once.titles
    assert keeper(tmp_path).find() == (None, ""), "an import that came to its end leaves no checkpoint"


def test_rows_without_items_at_the_end_need_no_call(tmp_path: Path) -> None:
    """Resumed after its last item: the refusals that follow are counted all the same."""
    gateway = Gateway()
    path = catalogue(tmp_path, [{"id": "1", "title": "one"}, {"id": "2"}, {"id": "3"}])
    with served(gateway) as target:
        done = Done(rows=1, accepted=1)
        progress = ingest.ingest(path, "", target, lambda _: None, lambda _: None, None, done)
    assert gateway.batches == []
    assert (progress.done.rows, progress.done.accepted, progress.done.rejections.total) == (3, 1, 2)
