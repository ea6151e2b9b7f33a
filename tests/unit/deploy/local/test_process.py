"""A process is known by when it began, not by its number alone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest

from deploy.local import process
from deploy.local.process import ProcessId


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    child = process.start(command, cwd=tmp_path, env=os.environ, log=tmp_path / "log")
    yield child
    child.kill()
    child.wait()


def test_it_runs_until_it_ends(sleeper: subprocess.Popen[bytes]) -> None:
    known = ProcessId.of(sleeper.pid)
    assert known is not None
    assert known.runs()
    assert not known.wait(0.05)
    known.send(SIGTERM)
    # Nobody has asked for its exit status yet: a zombie counts as ended.
    assert known.wait(10)
    assert ProcessId.of(sleeper.pid) is None


def test_a_number_that_somebody_else_got_is_never_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    known = ProcessId.of(sleeper.pid)
    assert known is not None
    replace(known, born="another time").send(SIGKILL)
    assert known.runs()
    assert not replace(known, born="another time").runs()


def test_it_is_out_of_reach_of_the_terminals_ctrl_c(sleeper: subprocess.Popen[bytes]) -> None:
    assert os.getsid(sleeper.pid) == sleeper.pid != os.getsid(0)


@pytest.mark.parametrize(("code", "text"), [(0, "exit code 0"), (1, "exit code 1"), (-9, "killed by SIGKILL")])
def test_an_exit_status_for_people(code: int, text: str) -> None:
    assert process.exit_text(code) == text
