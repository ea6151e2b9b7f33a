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
PACKAGES = ("grpcio", "onnxruntime", "torch", "transformers", "tokenizers", "numpy", "pymilvus")


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. `value` is `None` where it could not be measured, and `note` then says why."""

    name: str
    value: float | None
    goal: float
    better: str = "higher"
    unit: str = "ratio"
    raw: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; `None` where nothing was measured."""
        if self.value is None:
            return None
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal

    def as_json(self) -> dict[str, Any]:
        """One object of `build/bench/<part>.json`."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "goal": self.goal,
            "better": self.better,
            "met": self.met,
            "raw": self.raw,
            "note": self.note,
        }


def write(part: str, figures: list[Figure]) -> Path:
    """Writes the figures of `part` and their context, and prints them."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{part}.json"
    path.write_text(json.dumps([figure.as_json() for figure in figures], indent=2) + "\n")
    (OUT / "context.json").write_text(json.dumps(context(), indent=2) + "\n")
    table = Table(title=f"benchmark: {part}", title_justify="left")
    for column in ("figure", "value", "goal", "met", "note"):
        table.add_column(column, justify="right" if column in {"value", "goal"} else "left")
    for figure in figures:
        sign = "≥" if figure.better == "higher" else "≤"
        met = {True: "yes", False: "NO", None: "not measured"}[figure.met]
        value = "" if figure.value is None else f"{figure.value:.2f}"
        table.add_row(figure.name, value, f"{sign} {figure.goal:g}", met, figure.note)
    Console().print(table)
    return path


def context() -> dict[str, Any]:
    """Commit, date, machine and versions."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "")
    flags = next((line.split(":")[1].split() for line in cpuinfo.splitlines() if line.startswith("flags")), [])
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": model,
            "cores": len(os.sched_getaffinity(0)),
            "flags": [flag for flag in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if flag in flags],
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
