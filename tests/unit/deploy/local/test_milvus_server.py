"""What the script tells a Milvus server, seen by a program that stands in its place."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[4] / "deploy" / "local" / "milvus_server.sh"
_STANDS_IN = """#!/bin/sh
case "$*" in *create_server*) echo 1 2 ;; *) env ;; esac
"""


def told(tmp_path: Path, **given: str) -> dict[str, str]:
    """The environment that the server gets where the script has `given`."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "milvus-server"):
        (programs / name).write_text(_STANDS_IN)
        (programs / name).chmod(0o755)
    done = subprocess.run(
        [SCRIPT, "run", tmp_path / "data"],
        env={"PATH": os.environ["PATH"], "MILVUS_VENV": str(tmp_path / "venv"), **given},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


@pytest.mark.parametrize(
    ("given", "size", "share"),
    [
        ({}, "1024", "0.12"),
        ({"DATACOORD_SEGMENT_MAXSIZE": "512", "DATACOORD_SEGMENT_SEALPROPORTION": "0.23"}, "512", "0.23"),
    ],
)
def test_segments_are_large_unless_told_otherwise(tmp_path: Path, given: dict[str, str], size: str, share: str) -> None:
    environment = told(tmp_path, **given)
    assert environment["DATACOORD_SEGMENT_MAXSIZE"] == size
    assert environment["DATACOORD_SEGMENT_SEALPROPORTION"] == share
