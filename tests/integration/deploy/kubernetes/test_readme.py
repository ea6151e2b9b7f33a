"""What READMEs tell the owner of a cluster to write builds, and does what they say."""

import os
import re
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.kubernetes.build import KUBECTL, MANIFESTS
from deploy.kubernetes.mixes import HERE, Mix
from tests.integration.deploy.kubernetes.view import View

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(not KUBECTL.exists(), reason="kubectl is not installed: deploy/kubernetes/tools.sh kubectl"),
]


def overlay(readme: Path) -> dict[str, Any]:
    """The blocks of `readme` that are parts of a kustomization, on the base."""
    folder = MANIFESTS / "readme"
    told: dict[str, Any] = {"resources": [os.path.relpath(HERE / "base", folder)]}
    for block in re.findall(r"(?:^(?: {4}.*)?\n)+", readme.read_text(), re.MULTILINE):
        if re.match(r"\s*(configMapGenerator|patches):", block):
            told |= yaml.safe_load(textwrap.dedent(block))
    return told


def test_the_job_retrain_takes_settings_and_options() -> None:
    folder = MANIFESTS / "readme"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay(HERE / "base" / "jobs" / "README.md")))
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    view = View(Mix("base", (), frozenset()), [told for told in yaml.safe_load_all(done.stdout) if told])
    (pod,) = (pod for pod in view.pods if pod.name == "retrain")
    (prepare,) = pod.spec["initContainers"]
    assert view.environment(prepare)["JUDGEMENTS"] == "/training/judgements.csv"
    assert view.environment(prepare)["EVENTS"] == "dns:///user-events:50056"
    assert (prepare["command"][-1], pod.main["command"][-1]) == ("--position-bias=1", "--least-new=1000")
