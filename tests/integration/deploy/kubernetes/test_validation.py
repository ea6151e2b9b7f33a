"""The validator finds what is wrong: a field that does not exist, a value of the wrong type, a kind nobody knows."""

from typing import Any

import pytest

from deploy.kubernetes.build import TOOLS
from deploy.kubernetes.manifests import validate

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        not (TOOLS / "schemas" / "bin" / "python").exists(),
        reason="the schemas are not installed: deploy/kubernetes/tools.sh schemas",
    ),
]


def manifest(api_version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "y"}, "spec": spec}


GOOD = [
    manifest("policy/v1", "PodDisruptionBudget", {"maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}}),
    manifest("keda.sh/v1alpha1", "ScaledObject", {"scaleTargetRef": {"name": "z"}, "triggers": []}),
    manifest("postgresql.cnpg.io/v1", "Cluster", {"instances": 3, "storage": {"size": "1Gi"}}),
]


def test_what_is_right_passes() -> None:
    assert validate(GOOD) == ""


@pytest.mark.parametrize("good", GOOD, ids=lambda told: str(told["kind"]))
def test_every_fault_is_named(good: dict[str, Any]) -> None:
    misspelt = good | {"spec": good["spec"] | {"maxUnavailabel": 1}}
    assert "maxUnavailabel" in validate([misspelt])
    unknown = good | {"kind": "Unheard"}
    assert "there is no schema" in validate([unknown]) or "Unheard" in validate([unknown])
