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
