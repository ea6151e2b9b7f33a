"""Selectors find the pods they mean, and no others; names that are referred to are there."""

import re
from collections import Counter

import pytest

from deploy.kubernetes.mixes import HERE
from tests.integration.deploy.kubernetes.view import NAMESPACE, View, selects

pytestmark = pytest.mark.timeout(240)

SECRETS = set(
    re.findall(r"^\| `([a-z-]+)` \| `", (HERE / "README.md").read_text().partition("## Secrets")[2], re.MULTILINE)
)
"""Made by the cluster's owner, or an operator, as the README says."""


def test_services_budgets_and_deployments_select_their_own_pods(view: View) -> None:
    for told in view.of("Service", "PodDisruptionBudget", "Deployment"):
        selector = told["spec"]["selector"]
        selector = {"matchLabels": selector} if told["kind"] == "Service" else selector
        assert selector["matchLabels"]
        selected = [pod.name for pod in view.pods if selects(selector, pod.labels)]
        assert selected == [told["metadata"]["name"]], told["kind"]


def test_every_server_has_its_service_account_budget_and_address(view: View) -> None:
    for kind in ("Service", "ServiceAccount", "PodDisruptionBudget"):
        names = {told["metadata"]["name"] for told in view.of(kind)}
        assert {pod.name for pod in view.servers} <= names, kind
    for pod in view.pods:
        assert pod.spec["serviceAccountName"] == (pod.name if pod.kind == "Deployment" else "jobs")


def test_names_are_unique(view: View) -> None:
    names = Counter(
        (told["apiVersion"], told["kind"], told["metadata"].get("namespace"), told["metadata"]["name"])
        for told in view.objects
    )
    assert max(names.values()) == 1


def test_everything_is_in_its_namespace(view: View) -> None:
    cluster_wide = {"Namespace", "PriorityClass"}
    for told in view.objects:
        namespace = told["metadata"].get("namespace")
        if told["kind"] in cluster_wide:
            assert namespace is None
        else:
            assert namespace in {NAMESPACE, "milvus"}, told["metadata"]["name"]


def test_volumes_priorities_and_secrets_are_there(view: View) -> None:
    claims = {told["metadata"]["name"] for told in view.of("PersistentVolumeClaim")}
    priorities = {told["metadata"]["name"] for told in view.of("PriorityClass")}
    own = {told["metadata"]["name"] for told in view.of("Secret")}
    for pod in view.pods:
        assert pod.spec["priorityClassName"] in priorities
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {}).get("claimName", "models") in claims
        for container in pod.containers:
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
            assert secrets(container) <= SECRETS | own


def test_the_readme_lists_the_secrets() -> None:
    assert {"aisle-keys", "aisle-events-app", "milvus-credentials", "models-store"} == SECRETS


def test_everything_has_a_readme() -> None:
    folders = [
        path.parent for pattern in ("components/*", "overlays/*") for path in HERE.glob(f"{pattern}/kustomization.yaml")
    ]
    assert not [folder.name for folder in folders if not (folder / "README.md").is_file()]


def secrets(container: object) -> set[str]:
    """Names of the Secrets that a container refers to."""
    if isinstance(container, list):
        return {name for part in container for name in secrets(part)}
    if not isinstance(container, dict):
        return set()
    here = {container[key]["name"] for key in ("secretKeyRef", "secretRef") if key in container}
    return here | {name for part in container.values() for name in secrets(part)}


def test_pods_spread_among_their_own(view: View) -> None:
    for pod in view.servers:
        for constraint in pod.spec["topologySpreadConstraints"]:
            assert [other.name for other in view.pods if selects(constraint["labelSelector"], other.labels)] == [
                pod.name
            ]
    if view.mix.root.startswith("production"):
        (encoder,) = [pod for pod in view.servers if pod.name == "query-encoder"]
        zones, hosts = encoder.spec["topologySpreadConstraints"]
        assert (zones["topologyKey"], zones["whenUnsatisfiable"]) == ("topology.kubernetes.io/zone", "DoNotSchedule")
        assert hosts["topologyKey"] == "kubernetes.io/hostname"


def test_the_canary_is_reached_by_its_route_alone(view: View) -> None:
    if "canary" not in view.mix.parts:
        assert not view.of("GRPCRoute")
        return
    (route,) = view.of("GRPCRoute")
    (rule,) = route["spec"]["rules"]
    services = {told["metadata"]["name"]: told["spec"]["ports"][0]["port"] for told in view.of("Service")}
    assert [services[backend["name"]] == backend["port"] for backend in rule["backendRefs"]] == [True, True]
    assert sum(backend["weight"] for backend in rule["backendRefs"]) == 100


def test_the_route_to_services_that_ask_who_calls_has_a_certificate_and_takes_theirs(view: View) -> None:
    if "canary-mtls" not in view.mix.parts:
        assert not view.of("BackendTLSPolicy")
        return
    certificates = {told["spec"]["secretName"]: told["spec"] for told in view.of("Certificate")}
    (policy,) = (told["spec"] for told in view.of("BackendTLSPolicy"))
    (route,) = view.of("GRPCRoute")
    backends = {backend["name"] for rule in route["spec"]["rules"] for backend in rule["backendRefs"]}
    assert {target["name"] for target in policy["targetRefs"]} == backends
    (authority,) = policy["validation"]["caCertificateRefs"]
    for pod in view.servers:
        if pod.name in backends:
            (shown,) = (v["secret"]["secretName"] for v in pod.spec["volumes"] if v["name"] == "tls")
            assert shown == authority["name"]
            assert policy["validation"]["hostname"] in certificates[shown]["dnsNames"]
    (grant,) = (told["spec"] for told in view.of("ReferenceGrant"))
    (parent,) = route["spec"]["parentRefs"]
    assert [each["namespace"] for each in grant["from"]] == [parent["namespace"]]
    (lent,) = grant["to"]
    assert "client auth" in certificates[lent["name"]]["usages"]
