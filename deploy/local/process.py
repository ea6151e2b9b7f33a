"""Processes by pid and start time, so that a pid which the system gave to somebody else is never signalled."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process, for good. `born` says when the system started it, in the system's own terms."""

    pid: int
    born: str

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """The process that has `pid` now; `None` when there is none, or only its exit status is left."""
        born = _born(pid)
        return None if born is None else cls(pid, born)

    def runs(self) -> bool:
        """Whether this very process still runs."""
        return _born(self.pid) == self.born

    def send(self, number: signal.Signals) -> None:
        """Signals it, if it still runs."""
        if self.runs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended within `timeout_s`."""
        until = time.monotonic() + timeout_s
        while self.runs():
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_S)
        return True


def start(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Starts `command` in a session of its own, so that a Ctrl-C at the terminal reaches the supervisor alone.
    What it writes is added to `log`."""
    with log.open("ab") as out:
        return subprocess.Popen(
            command, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )


def exit_text(code: int) -> str:
    """An exit status for people: `exit code 1`, `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _born(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _born_by_ps(pid)
    # The name in parentheses may hold anything, parentheses and spaces included.
    fields = stat.rpartition(")")[2].split()
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else ticks


def _born_by_ps(pid: int) -> str | None:
    """Where there is no /proc. Seconds only, which still tells a recycled pid."""
    told = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return None if len(told) < 2 or told[0].startswith("Z") else told[1].strip()
