"""How many cores this process may really use: a container sees all of the host's, and is throttled at its quota."""

import math
import os
import sys
from pathlib import Path

_ROOT = Path("/")


def available_cpus(root: Path = _ROOT) -> float:
    """Cores, as the least of the affinity mask and the cgroup's CPU limit (v2 or v1); may be a fraction.

    `root` stands for `/` in tests. See https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu.
    """
    cores = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    limit = _cgroup_v2(root) or _cgroup_v1(root)
    return min(cores, limit) if limit else cores


def inference_threads(requested: int | None = None, root: Path = _ROOT) -> int:
    """Threads for one forward pass: `requested`, or a thread per whole core that is available, at least one.

    Rounded down: a thread that shares the last fraction of a quota makes all the others wait for it.
    """
    if requested is not None:
        if requested < 1:
            raise ValueError(f"threads must be at least 1, got {requested}")
        return requested
    return max(1, math.floor(available_cpus(root)))


def tune_interpreter() -> None:
    """Let the batch thread have the GIL within 0.5 ms of asking. For a service's start; it is process-wide.

    By default a thread that comes back from a forward pass waits up to 5 ms for a busy event loop to let go of
    the GIL: longer than a short query's whole forward pass.
    """
    sys.setswitchinterval(0.0005)


def _cgroup_v2(root: Path) -> float | None:
    """The tightest `cpu.max` from this process's group up to the mount's root."""
    mount = root / "sys/fs/cgroup"
    lines = _read(root / "proc/self/cgroup").splitlines()
    group = next((line[3:] for line in lines if line.startswith("0::")), "/").lstrip("/")
    limits = []
    for level in (mount / group, *(mount / group).parents):
        match _read(level / "cpu.max").split():
            case [quota, period] if quota != "max":
                limits.append(int(quota) / int(period))
        if level == mount:
            break
    return min(limits, default=None)


def _cgroup_v1(root: Path) -> float | None:
    for name in ("cpu", "cpu,cpuacct"):
        folder = root / "sys/fs/cgroup" / name
        quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
        if quota and period and int(quota) > 0:
            return int(quota) / int(period)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
