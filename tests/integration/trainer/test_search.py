"""From a search to the model that its last line tells how to train."""

import json
import shlex
from pathlib import Path

import pytest

from services.trainer import __main__ as command
from services.trainer.record import read_record
from tests.support.judged_shop import make_prepared


def test_the_command_that_a_search_prints_trains_what_it_found(tiny_base: Path, tmp_path: Path) -> None:
    data, out = str(make_prepared(tmp_path).path), tmp_path / "search"
    small = ["--base", str(tiny_base), "--max-steps", "6", "--evaluations", "2", "--validation-items", "5"]
    space = tmp_path / "space.toml"
    space.write_text("[learning_rate]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n[batch]\nchoices = [8, 16]\n")
    search = ["search", "--data", data, "--out", str(out), "--space", str(space), *small]
    assert command.main([*search, "--trials", "2"]) == 0
    assert command.main([*search, "--trials", "3", "--resume"]) == 0
    found = json.loads((out / "search.json").read_text())
    assert len(found["trials"]) == 3

    assert command.main(shlex.split(found["best"]["command"])[3:]) == 0
    again = read_record(out / "best")
    assert again is not None
    assert again.evaluation[found["metric"]] == pytest.approx(found["best"]["value"], abs=1e-6)
