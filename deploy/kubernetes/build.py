"""Manifests as kustomize makes them, parsed. Needs kubectl, which tools.sh puts into build/tools."""

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

import yaml

from deploy.kubernetes.mixes import HERE, Mix

ROOT = HERE.parents[1]
TOOLS = ROOT / "build" / "tools"
KUBECTL = TOOLS / "bin" / "kubectl"
MANIFESTS = ROOT / "build" / "manifests"

Object = dict[str, Any]
"""One Kubernetes object."""


class BuildError(Exception):
    """kustomize refused; the message is its own, and names the mix."""


def build(mix: Mix) -> list[Object]:
    """Every object of `mix`."""
    folder = MANIFESTS / mix.name
    folder.mkdir(parents=True, exist_ok=True)
    up = Path(*[".."] * len(folder.relative_to(ROOT).parts))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [str(up / mix.folder.relative_to(ROOT))],
        "components": [str(up / "deploy" / "kubernetes" / "components" / name) for name in mix.added],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{mix.name}: {done.stderr.strip()}")
    (folder / "manifests.yaml").write_text(done.stdout)
    return [told for told in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if told]


def build_all(mixes: Sequence[Mix]) -> dict[Mix, list[Object]]:
    """Every mix, as many at once as there are processors."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        return dict(zip(mixes, pool.map(build, mixes), strict=True))
