"""Dashboards as Grafana reads them, and as a page."""

import json
from collections.abc import Sequence
from typing import Any

from deploy.grafana.panel import Board, Panel

_COLUMNS, _WIDTH, _HEIGHT = 2, 12, 8
"""Grafana's grid is 24 wide."""
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(board: Board) -> str:
    """Grafana's JSON."""
    told: dict[str, Any] = {
        "uid": board.uid,
        "title": board.title,
        "tags": ["aisle"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": [_panel(panel, at) for at, panel in enumerate(board.panels)],
    }
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def _panel(panel: Panel, at: int) -> dict[str, Any]:
    row, column = divmod(at, _COLUMNS)
    empty = f" Shows nothing where {panel.empty}." if panel.empty else ""
    return {
        "id": at + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": f"{panel.tells} What to do: {panel.do}{empty}",
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {
                "refId": "A",
                "datasource": _SOURCE,
                "expr": panel.query,
                "legendFormat": panel.legend or panel.title,
                "exemplar": "_seconds" in panel.query,
            }
        ],
    }


def page(boards: Sequence[Board]) -> str:
    """Markdown: each panel, its query, what it tells and what to do."""
    lines = [
        "# Dashboards",
        "",
        "Made by `make docs` from `deploy/grafana/boards.py`; do not edit. `make dashboards-check` asks every query of",
        "a real Prometheus that reads a running mesh. Some panels tell services apart by the label `service`, which",
        "the scrape gives (see `deploy/local/scrape.py`).",
    ]
    for board in boards:
        lines += ["", f"## {board.title}", "", "| panel | tells | what to do | query |", "|---|---|---|---|"]
        lines += [_row(panel) for panel in board.panels]
    return "\n".join(lines) + "\n"


def _row(panel: Panel) -> str:
    empty = f" Empty where {panel.empty}." if panel.empty else ""
    do = f"[{panel.do}]({panel.do})" if panel.do.startswith("runbooks/") else panel.do
    query = panel.query.replace("|", "\\|")
    return f"| {panel.title} | {panel.tells}{empty} | {do} | `{query}` |"
