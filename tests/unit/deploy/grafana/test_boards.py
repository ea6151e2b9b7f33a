"""Dashboards are current, and show every metric there is."""

import json
import re
from pathlib import Path

import pytest

from deploy.grafana import render
from deploy.grafana.boards import BOARDS
from deploy.grafana.panel import Board
from shared.telemetry.metrics import REGISTRY

ROOT = Path(__file__).parents[4]
FOLDER = ROOT / "deploy" / "grafana"
ASKED = {
    re.sub(r"_(bucket|sum|count)$", "", name)
    for board in BOARDS
    for panel in board.panels
    for name in re.findall(r"\b(?:aisle|grpc)_[a-z_]+(?=[\[{) ]|$)", panel.query)
    if not name.startswith(("grpc_service", "grpc_method", "grpc_code"))
}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_dashboard_is_current_and_whole(board: Board) -> None:
    written = (FOLDER / "dashboards" / f"{board.uid}.json").read_text()
    assert written == render.dashboard(board), "run `make docs`"
    told = json.loads(written)
    places = {(p["gridPos"]["x"], p["gridPos"]["y"]) for p in told["panels"]}
    assert len(places) == len(board.panels)
    assert f"dashboards/{board.uid}.json" in (FOLDER / "kustomization.yaml").read_text()


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "dashboards.md").read_text() == render.page(BOARDS), "run `make docs`"


def test_every_metric_is_on_a_dashboard_and_every_one_there_exists() -> None:
    declared = {one.name for one in REGISTRY.declarations}
    assert declared - ASKED == set()
    assert ASKED - declared == set()


@pytest.mark.parametrize("runbook", sorted({p.do for b in BOARDS for p in b.panels if p.do.startswith("runbooks/")}))
def test_runbooks_are_there(runbook: str) -> None:
    assert (ROOT / "docs" / runbook).is_file()
