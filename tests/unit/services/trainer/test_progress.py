import sys

import pytest

from services.trainer.parts import ROWS
from services.trainer.progress import bar, shown


@pytest.mark.parametrize(("rows", "terminal", "bar"), [(5_000, True, True), (5_000, False, False), (10, True, False)])
def test_a_bar_is_for_long_work_before_a_terminal(
    monkeypatch: pytest.MonkeyPatch, rows: int, terminal: bool, bar: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert shown(rows) is bar


def test_a_bar_begins_at_what_is_done_and_a_part_has_none_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with bar(5_000, 2_048) as told:
        assert (told.n, told.total, told.disable) == (2_048, 5_000, False)
    assert not shown(ROWS)
