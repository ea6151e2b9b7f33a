"""`python -m deploy.grafana` writes the dashboards to `deploy/grafana/dashboards/` and their page to `docs/`."""

from pathlib import Path

from deploy.grafana import render
from deploy.grafana.boards import BOARDS

_ROOT = Path(__file__).parents[2]


def main() -> None:
    for board in BOARDS:
        (_ROOT / "deploy" / "grafana" / "dashboards" / f"{board.uid}.json").write_text(render.dashboard(board))
    (_ROOT / "docs" / "dashboards.md").write_text(render.page(BOARDS))


if __name__ == "__main__":
    main()
