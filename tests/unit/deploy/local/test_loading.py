"""A load as the person at the terminal sees it: where it goes on, what came of it, what to do."""

import json
from pathlib import Path

import pytest

from deploy.local import ingest
from deploy.local.catalogue import choose
from deploy.local.errors import LocalError
from deploy.local.loading import Destination, load
from tests.support.import_gateway import ImportGateway, served


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ingest, "BATCH_ITEMS", 10)
    path = tmp_path / "shop.jsonl"
    rows: list[dict[str, object]] = [{"id": str(n), "title": f"thing {n}"} for n in range(97)]
    rows[4:4] = [{"id": "bad-1"}, {"id": "bad-2", "price": -1, "title": "t"}, {"id": "bad-3"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(shop: Path, gateway: ImportGateway, *, restart: bool = False) -> None:
    with served(gateway) as target:
        load(choose(str(shop), None), Destination(target, "the index"), shop.parent / "mesh", restart=restart)


def cut_off(shop: Path, gateway: ImportGateway) -> None:
    gateway.fails_at = 5
    with pytest.raises(LocalError, match=r"stopped after 50 items, at row 53: .* it goes on from there"):
        run(shop, gateway)
    gateway.fails_at = None
    gateway.batches.clear()


def test_a_load_that_was_cut_off_goes_on(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = ImportGateway()
    cut_off(shop, gateway)
    capsys.readouterr()
    run(shop, gateway)
    said = capsys.readouterr().out
    assert f"resuming after row 53 of {shop}\n" in said
    assert "97 rows are in the index, 50 of them by an earlier run" in said
    assert sum(gateway.batches) == 47
    assert len(gateway.titles) == 97
    # It came to its end: the same once more is all of it once more.
    run(shop, gateway)
    assert "resuming" not in capsys.readouterr().out
    assert sum(gateway.batches) == 47 + 97


def test_rejected_rows_are_told_by_reason_and_with_a_remedy(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(shop, ImportGateway())
    said = capsys.readouterr().out
    assert "  rejected: line 5: title: must not be empty\n" in said
    assert "97 rows are in the index (" in said
    assert "3 rows were rejected:\n  2 × title: must not be empty (line 5, line 7)\n" in said
    assert "(line 6)" in said
    assert f"python -m shared.catalogue check {shop}" in said
    assert "MAPPING" in said


def test_one_that_is_told_to_starts_over(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = ImportGateway()
    cut_off(shop, gateway)
    run(shop, gateway, restart=True)
    assert "resuming" not in capsys.readouterr().out
    assert sum(gateway.batches) == 97


def test_a_changed_file_starts_over(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = ImportGateway()
    cut_off(shop, gateway)
    with shop.open("a") as file:
        file.write('{"id": "new", "title": "something new"}\n')
    run(shop, gateway)
    assert f"{shop} has changed since row 53: starting from the beginning" in capsys.readouterr().out
    assert sum(gateway.batches) == 98


def test_an_index_that_was_emptied_starts_over(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut_off(shop, ImportGateway())
    emptied = ImportGateway()
    run(shop, emptied)
    assert "the index has lost items since row 53: starting from the beginning" in capsys.readouterr().out
    assert len(emptied.titles) == 97


def test_a_gateway_that_does_not_answer_costs_no_work_done(shop: Path) -> None:
    gateway = ImportGateway()
    cut_off(shop, gateway)
    with pytest.raises(LocalError, match=r"the gateway on 127.0.0.1:1 answered UNAVAILABLE"):
        load(choose(str(shop), None), Destination("127.0.0.1:1", "the index"), shop.parent / "mesh")
    run(shop, gateway)
    assert sum(gateway.batches) == 47
