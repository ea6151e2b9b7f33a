"""A signal ends a command even where Python swallows what its handler raises."""

import subprocess
import sys

import pytest

from deploy.local.spec import ROOT

SWALLOWED = """
import os, signal, sys
from deploy.local import interrupt

class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        for _ in range(1000):
            pass

sys.unraisablehook = lambda _: None
interrupt.install()
interrupt.check()
Swallows()
print("went on", flush=True)
try:
    interrupt.check()
except interrupt.Interrupted as interrupted:
    sys.exit(interrupted.number)
"""


@pytest.mark.parametrize(("name", "number"), [("SIGINT", 2), ("SIGTERM", 15)])
def test_a_signal_that_was_swallowed_is_raised_when_asked_for(name: str, number: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SWALLOWED.format(name=name)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stdout == "went on\n"
    assert ended.returncode == number, ended.stderr


DEFERRED = """
import os, signal, sys
from deploy.local import interrupt

interrupt.install()
try:
    with interrupt.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        print("to its end", flush=True)
    print("went on", flush=True)
except interrupt.Interrupted as interrupted:
    with interrupt.deferred():
        print("cleaned up", flush=True)
    sys.exit(interrupted.number)
"""


def test_a_signal_waits_for_the_end_of_a_step_and_is_raised_once() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", DEFERRED], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.stdout == "to its end\ncleaned up\n"
    assert ended.returncode == 2, ended.stderr
