"""Queries of scalers and alerts by Prometheus' own tool: they parse, and the scalers' give a number, idle or busy."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.kubernetes.build import Object
from deploy.kubernetes.mixes import HERE, Mix
from tests.integration.deploy.kubernetes.view import View
from tests.support.prometheus import program

PROMTOOL = program("promtool")

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(PROMTOOL is None, reason="promtool is not there: make prometheus"),
]


@pytest.fixture(scope="module")
def full(built: Mapping[Mix, Sequence[Object]]) -> View:
    """A mix with KEDA and monitoring."""
    mix = next(mix for mix in built if {"keda", "monitoring"} <= mix.parts)
    return View(mix, built[mix])


def scalers(view: View) -> dict[str, str]:
    return {
        f"{told['metadata']['name']}_{trigger['name']}".replace("-", "_"): trigger["metadata"]["query"]
        for told in view.of("ScaledObject")
        for trigger in told["spec"]["triggers"]
        if trigger["type"] == "prometheus"
    }


def adapter() -> dict[str, str]:
    """The adapter's queries, with its placeholders filled in as it does for two pods."""
    rules = yaml.safe_load((HERE / "components" / "hpa" / "adapter.yaml").read_text())["rules"]["custom"]
    return {f"adapter_{position}": _filled(rule) for position, rule in enumerate(rules)}


def _filled(rule: Mapping[str, str]) -> str:
    series = re.match(r"\w+", rule["seriesQuery"])
    assert series
    told = {"Series": series[0], "LabelMatchers": 'namespace="aisle",pod=~"a|b"', "GroupBy": "pod"}
    return re.sub(r"<<\.(\w+)>>", lambda match: told[match[1]], rule["metricsQuery"])


def promtool(command: str, told: object, folder: Path) -> None:
    file = folder / f"{command}.yaml"
    file.write_text(yaml.safe_dump(told))
    assert PROMTOOL
    done = subprocess.run([PROMTOOL, command, "rules", file], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def groups(queries: Mapping[str, str]) -> dict[str, Any]:
    rules = [{"record": name, "expr": query} for name, query in queries.items()]
    return {"groups": [{"name": "queries", "rules": rules}]}


def test_every_query_parses(full: View, tmp_path: Path) -> None:
    alerts = [rule for told in full.of("PrometheusRule") for group in told["spec"]["groups"] for rule in group["rules"]]
    told = groups(scalers(full) | adapter())
    told["groups"][0]["rules"] += alerts
    promtool("check", told, tmp_path)


@pytest.mark.parametrize(
    ("waited", "depth", "wait"),
    [("0+0x40", 0, 0), ("0+60x40", 6, 0.0975)],
    ids=["idle", "every input waits 50 to 100 ms"],
)
def test_a_scaler_is_told_a_number(full: View, tmp_path: Path, waited: str, depth: float, wait: float) -> None:
    encoder = 'namespace="aisle",service="query-encoder",priority="interactive"'
    series = [
        {"series": f'aisle_engine_queue_items{{{encoder},pod="{pod}"}}', "values": f"{depth / 2}x40"} for pod in "ab"
    ]
    for bound, values in (("0.05", "0+0x40"), ("0.1", waited), ("+Inf", waited)):
        series.append({"series": f'aisle_engine_queue_seconds_bucket{{{encoder},le="{bound}"}}', "values": values})
    expected = {"query_encoder_queue_depth": depth, "query_encoder_queue_wait": wait}
    # At none, the item encoder has no series at all, and neither has a gateway that nobody asked to write.
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump(groups(scalers(full))))
    promtool(
        "test",
        {
            "rule_files": ["queries.yaml"],
            "evaluation_interval": "15s",
            "tests": [
                {
                    "interval": "15s",
                    "input_series": series,
                    "promql_expr_test": [
                        {"expr": name, "eval_time": "5m", "exp_samples": [{"labels": name, "value": value}]}
                        for name, value in expected.items()
                    ],
                }
            ],
        },
        tmp_path,
    )
