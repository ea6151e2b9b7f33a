import sys
from pathlib import Path

import pytest

from tests.evaluation import __main__ as command


def test_a_set_that_nobody_has_prepared_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluation", "--task", "search", "--prepared", str(tmp_path / "none")])
    assert command.main() == 1
    told = capsys.readouterr().err
    assert f"{tmp_path / 'none'} has no prepared.json" in told
    assert "docs/training.md" in told


def test_sets_that_are_not_there_are_left_out_and_said_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "PREPARED", tmp_path / "prepared")
    monkeypatch.setattr(sys, "argv", ["evaluation", "--task", "search", "--data", str(tmp_path)])
    assert command.main() == 1
    told = capsys.readouterr()
    assert [line.partition(":")[0] for line in told.out.splitlines()] == [
        "home_depot is left out",
        "icecat is left out",
    ]
    assert "nothing was measured" in told.err


def test_a_set_of_the_other_task_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluation", "--task", "search", "--dataset", "movielens"])
    with pytest.raises(SystemExit):
        command.main()
    assert "task search has home_depot, icecat" in capsys.readouterr().err
