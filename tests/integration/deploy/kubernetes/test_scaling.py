"""Scalers and alerts look at metrics that exist, at services that exist, and never two at one."""

import re
from collections import Counter
from collections.abc import Iterator

import pytest
import yaml

from deploy.kubernetes.mixes import HERE
from shared.telemetry.metrics import REGISTRY
from tests.integration.deploy.kubernetes.view import NAMESPACE, View

pytestmark = pytest.mark.timeout(240)

SCALED = {"gateway", "query-encoder", "item-encoder", "vector-retrieval", "reranker", "user-events"}
CANARY = "gateway-canary"
MODELS = {"query-encoder", "item-encoder", "reranker"}


def registry() -> dict[str, set[str]]:
    """Series of every declared metric, with their labels."""
    series: dict[str, set[str]] = {}
    for one in REGISTRY.declarations:
        parts = {"_bucket": {"le"}, "_count": set(), "_sum": set()} if one.kind == "histogram" else {"": set()}
        series |= {f"{one.name}{part}": {*one.labels, *more} for part, more in parts.items()}
    return series


TARGET_LABELS = {"namespace", "pod", "service"}
"""What Prometheus adds to every series (monitoring/pod-monitor.yaml)."""


def selectors(query: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Every series of a query, with what it is restricted to."""
    for name, inside in re.findall(r"\b((?:aisle|grpc)_[a-z_]+)\b(?:\{([^}]*)\})?", query):
        if not name.startswith(("grpc_service", "grpc_method", "grpc_code", "grpc_type")):
            yield name, dict(re.findall(r'(\w+)=~?"([^"]*)"', inside))


def check(query: str, view: View) -> None:
    declared = registry()
    found = list(selectors(query))
    assert found
    for name, restricted in found:
        assert name in declared
        assert set(restricted) <= declared[name] | TARGET_LABELS
        if "service" in restricted:
            # The canary is there in some mixes only.
            assert set(restricted["service"].split("|")) - {CANARY} <= {pod.name for pod in view.servers}
        assert restricted.get("namespace", NAMESPACE) == NAMESPACE


def test_no_target_has_two_scalers(view: View) -> None:
    targets = Counter(
        told["spec"]["scaleTargetRef"]["name"] for told in view.of("ScaledObject", "HorizontalPodAutoscaler")
    )
    assert set(targets) == (SCALED if view.mix.parts & {"keda", "hpa"} else set())
    assert set(targets.values()) <= {1}


def test_a_scaled_deployment_leaves_its_replicas_to_the_scaler(view: View) -> None:
    targets = {told["spec"]["scaleTargetRef"]["name"] for told in view.of("ScaledObject", "HorizontalPodAutoscaler")}
    for pod in view.servers:
        assert ("replicas" in pod.owner["spec"]) == (pod.name not in targets), pod.name


def test_models_are_scaled_by_their_queue_and_not_by_cpu(view: View) -> None:
    for told in view.of("ScaledObject"):
        types = {trigger["type"] for trigger in told["spec"]["triggers"]}
        assert types == ({"prometheus"} if told["metadata"]["name"] in MODELS else {"cpu"})
    for told in view.of("HorizontalPodAutoscaler"):
        types = {metric["type"] for metric in told["spec"]["metrics"]}
        assert types == ({"Pods"} if told["metadata"]["name"] in MODELS else {"Resource"})


def test_keda_asks_for_metrics_that_exist(view: View) -> None:
    for told in view.of("ScaledObject"):
        name = told["metadata"]["name"]
        for trigger in told["spec"]["triggers"]:
            if trigger["type"] != "prometheus":
                continue
            assert trigger["metadata"]["serverAddress"].startswith("http://")
            check(trigger["metadata"]["query"], view)
            (asked,) = {restricted["service"] for _, restricted in selectors(trigger["metadata"]["query"])}
            # An encoder that is not there has no metrics: the gateways' calls wake it.
            assert asked == (f"gateway|{CANARY}" if trigger["name"] == "demand" else name)
        if told["spec"]["minReplicaCount"] == 0:
            assert "demand" in {trigger["name"] for trigger in told["spec"]["triggers"]}


def test_replicas_stay_within_what_the_design_says(view: View) -> None:
    least = {told["metadata"]["name"]: told["spec"]["minReplicaCount"] for told in view.of("ScaledObject")}
    least |= {told["metadata"]["name"]: told["spec"]["minReplicas"] for told in view.of("HorizontalPodAutoscaler")}
    for name, replicas in least.items():
        assert replicas == (2 if name != "item-encoder" else 0 if "keda" in view.mix.parts else 1)
    behaviors = [
        told["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] for told in view.of("ScaledObject")
    ] + [told["spec"]["behavior"] for told in view.of("HorizontalPodAutoscaler")]
    assert all(behavior["scaleDown"]["stabilizationWindowSeconds"] >= 300 for behavior in behaviors)


def test_the_adapter_makes_what_the_hpas_ask_for(view: View) -> None:
    rules = yaml.safe_load((HERE / "components" / "hpa" / "adapter.yaml").read_text())["rules"]["custom"]
    made = {}
    for rule in rules:
        ((series, _),) = selectors(rule["seriesQuery"])
        assert series in registry()
        made[rule.get("name", {}).get("as", series)] = series
    for told in view.of("HorizontalPodAutoscaler"):
        for metric in told["spec"]["metrics"]:
            assert metric["type"] == "Resource" or metric["pods"]["metric"]["name"] in made


def test_alerts_ask_for_metrics_that_exist(view: View) -> None:
    for told in view.of("PrometheusRule"):
        rules = [rule for group in told["spec"]["groups"] for rule in group["rules"]]
        recorded = {rule["record"] for rule in rules if "record" in rule}
        for rule in rules:
            named = set(re.findall(r"\baisle:[a-z_:0-9]+", rule["expr"]))
            assert named <= recorded
            if not named:
                check(rule["expr"], view)


def test_prometheus_finds_every_server(view: View) -> None:
    for told in view.of("PodMonitor"):
        if "namespaceSelector" in told["spec"]:
            # Of pods that an operator makes.
            assert told["spec"]["namespaceSelector"]["matchNames"] == ["milvus"]
            continue
        wanted = told["spec"]["selector"]["matchLabels"].items()
        (endpoint,) = told["spec"]["podMetricsEndpoints"]
        for pod in view.servers:
            assert wanted <= pod.labels.items()
            assert endpoint["port"] in pod.ports()
            # The label `service` of the queries is made of this one.
            assert pod.labels["app.kubernetes.io/name"] == pod.name


def test_metrics_ports_are_open_where_prometheus_has_no_certificate(view: View) -> None:
    for told in view.of("PeerAuthentication"):
        open_ports = {int(port) for port, mode in told["spec"]["portLevelMtls"].items() if mode["mode"] == "PERMISSIVE"}
        assert open_ports == {pod.ports()["metrics"] for pod in view.servers}
        assert told["spec"]["mtls"]["mode"] == "STRICT"
