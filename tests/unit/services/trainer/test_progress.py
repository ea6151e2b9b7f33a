import sys

import pytest

from services.trainer.progress import shown


@pytest.mark.parametrize(("rows", "terminal", "bar"), [(5_000, True, True), (5_000, False, False), (10, True, False)])
def test_a_bar_is_for_long_work_before_a_terminal(
    monkeypatch: pytest.MonkeyPatch, rows: int, terminal: bool, bar: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert shown(rows) is bar
