"""What processes have used since they started, by /proc."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """`peak_mib`: the most memory that was resident at once (`VmHWM`). `cpu_s`: of all its threads."""

    peak_mib: float = 0.0
    cpu_s: float = 0.0


def usage(pid: int) -> Usage:
    """Of the process that has `pid`; nothing where there is none, or it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        # The name in parentheses may hold anything, parentheses and spaces included.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return Usage()
    peak = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    if peak is None:
        # It is ending: its memory is gone before its entry is.
        return Usage()
    return Usage(int(peak[1]) / 1024, (int(fields[11]) + int(fields[12])) / _TICKS_PER_S)


def of_group(leader: int) -> Usage:
    """Of all processes in a group together."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    found = [usage(pid) for pid in pids if _group(pid) == leader]
    return Usage(sum(one.peak_mib for one in found), sum(one.cpu_s for one in found))


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None
