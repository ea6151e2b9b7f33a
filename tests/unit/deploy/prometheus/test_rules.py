"""The rules are current, speak of metrics that exist, lead to runbooks, and do as they should in a real promtool."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.prometheus.kubernetes import prometheus_rule
from deploy.prometheus.slo import rules
from shared.telemetry.metrics import REGISTRY
from tests.support.prometheus import program

ROOT = Path(__file__).parents[4]
FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
DECLARED = {one.name: one for one in REGISTRY.declarations}
NAME = re.compile(r"\b(?:aisle|grpc)_[a-z_]+\b")


def alerts() -> list[dict[str, Any]]:
    groups = [g for name in ("slo.yml", "alerts.yml") for g in yaml.safe_load((FOLDER / name).read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def unknown(text: str) -> set[str]:
    """Names in `text` that are of no declared metric, nor of one of its labels."""
    series = set()
    for name, one in DECLARED.items():
        series |= {name, *one.labels}
        if one.kind == "histogram":
            series |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    return set(NAME.findall(text)) - series


def test_the_rules_are_current() -> None:
    assert (FOLDER / "slo.yml").read_text() == rules(), "run `make docs`"
    told = FOLDER.parent / "kubernetes" / "components" / "monitoring" / "rules.yaml"
    assert told.read_text() == prometheus_rule(), "run `make docs`"


def test_kubernetes_has_every_rule() -> None:
    files = [yaml.safe_load((FOLDER / name).read_text())["groups"] for name in ("slo.yml", "alerts.yml")]
    assert yaml.safe_load(prometheus_rule())["spec"]["groups"] == [*files[0], *files[1]]


@pytest.mark.parametrize("name", ["slo.yml", "alerts.yml", "tests.yml"])
def test_rules_speak_of_metrics_that_are_declared(name: str) -> None:
    assert not unknown((FOLDER / name).read_text())
    assert unknown("sum(rate(grpc_server_gone_total[5m]))") == {"grpc_server_gone_total"}


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_runbooks_ask_for_metrics_that_are_declared(page: Path) -> None:
    assert not unknown(page.read_text())


@pytest.mark.parametrize("alert", alerts(), ids=lambda a: f"{a['alert']}-{a['labels']['severity']}")
def test_every_alert_has_a_runbook_that_names_it(alert: dict[str, Any]) -> None:
    page = ROOT / alert["annotations"]["runbook"]
    assert alert["alert"] in page.read_text().splitlines()[0]
    assert alert["labels"]["severity"] in {"page", "ticket"}


def test_every_alert_is_tried() -> None:
    tried = (FOLDER / "tests.yml").read_text()
    named = {a["alert"] for a in alerts() if "slo" not in a["labels"]}
    objectives = {a["labels"]["slo"] for a in alerts() if "slo" in a["labels"]}
    assert not {name for name in named if f'alertname="{name}"' not in tried}
    assert not {name for name in objectives if f"slo: {name}" not in tried and f'slo="{name}"' not in tried}


@pytest.fixture(scope="module")
def promtool() -> str:
    found = program("promtool")
    if found is None:
        pytest.skip("no promtool on this machine: run `make prometheus`")
    return found


@pytest.mark.parametrize(
    "command",
    ["check rules slo.yml alerts.yml", "check config prometheus.yml", "test rules tests.yml"],
)
def test_promtool_agrees(promtool: str, command: str) -> None:
    done = subprocess.run(
        [promtool, *command.split()], cwd=FOLDER, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
