"""What a benchmark says: figures, printed as a table and written as JSON, with the machine they are of."""

import json
import os
import platform
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "bench"
LOGS = OUT / "logs"
PACKAGES = ("grpcio", "onnxruntime", "torch", "transformers", "tokenizers", "numpy", "pymilvus")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is called and should reach: known before it is measured, so that a failed row still names it. A
    figure without a `goal` is there to compare with."""

    name: str
    goal: float | None
    """`None` where nobody has set one: the figure is for comparing runs."""
    better: str = "higher"
    unit: str = "ratio"

    def shown(self) -> str:
        """The goal in words."""
        unit = "" if self.unit == "ratio" else f" {self.unit}"
        sign = "≥" if self.better == "higher" else "≤"
        return f"none{unit and f' ({self.unit})'}" if self.goal is None else f"{sign} {self.goal:g}{unit}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. `value` is `None` where it could not be measured, and `note` then says why."""

    goal: Goal
    value: float | None
    raw: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    besides: bool = True
    """Whether what the goal asks for besides the number, such as being sure of it, is so too."""

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; `None` where there is none, or nothing was measured."""
        if self.value is None or self.goal.goal is None:
            return None
        reached = self.value >= self.goal.goal if self.goal.better == "higher" else self.value <= self.goal.goal
        return reached and self.besides

    def as_json(self) -> dict[str, Any]:
        """One object of `build/bench/<part>.json`."""
        return {
            "name": self.goal.name,
            "value": self.value,
            "unit": self.goal.unit,
            "goal": self.goal.goal,
            "better": self.goal.better,
            "met": self.met,
            "raw": self.raw,
            "note": self.note,
        }


def write(name: str, figures: list[Figure], *, folder: Path = OUT, kind: str = "benchmark", **settings: Any) -> Path:
    """Writes `<name>.json` and the context into `folder`, and prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps([figure.as_json() for figure in figures], indent=2) + "\n")
    (folder / "context.json").write_text(json.dumps({**context(), **settings}, indent=2) + "\n")
    table = Table(title=f"{kind}: {name}", title_justify="left")
    for column in ("figure", "value", "goal", "met", "note"):
        table.add_column(column, justify="right" if column in {"value", "goal"} else "left", overflow="fold")
    for figure in figures:
        met = {True: "yes", False: "NO", None: "not measured" if figure.value is None else ""}[figure.met]
        value = "" if figure.value is None else f"{figure.value:.3f}"
        table.add_row(figure.goal.name, value, figure.goal.shown(), met, figure.note)
    Console().print(table)
    return path


def context() -> dict[str, Any]:
    """Commit, date, machine and versions."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "")
    flags = next((line.split(":")[1].split() for line in cpuinfo.splitlines() if line.startswith("flags")), [])
    return {
        "commit": _git("rev-parse", "HEAD"),
        # The commit alone would claim figures that other code gave.
        "uncommitted_changes": bool(_git("status", "--porcelain")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": model,
            "cores": len(os.sched_getaffinity(0)),
            "flags": [flag for flag in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if flag in flags],
            # Of what else it does: ratios taken in turns bear it, differences in milliseconds do not.
            "load_average": round(os.getloadavg()[1], 1),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
