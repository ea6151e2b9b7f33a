"""Envoy's configuration for a mesh, made of its specification: the one place that says what stands where."""

import json
from pathlib import Path
from typing import Any

from deploy.envoy import tls
from deploy.envoy.clusters import address, cluster
from deploy.envoy.listeners import listener
from deploy.local import files
from deploy.local.errors import LocalError
from deploy.local.identities import callers
from deploy.local.kinds import KINDS, PROXY
from deploy.local.spec import MeshSpec


def write(spec: MeshSpec) -> Path:
    """Writes what Envoy reads into a folder below that of `spec`, and returns the file to start it with."""
    if spec.identities is None:
        raise LocalError("Envoy stands in meshes with mTLS only: MESH=envoy")
    folder = spec.folder / "envoy"
    folder.mkdir(parents=True, exist_ok=True)
    tls.write(spec.identities.files(PROXY.name), folder)
    config = folder / "envoy.json"
    files.write(config, json.dumps(bootstrap(spec, folder), indent=2))
    return config


def bootstrap(spec: MeshSpec, secrets: Path) -> dict[str, Any]:
    """A listener and a cluster for each service, and the admin interface, which only this machine reaches. `secrets` is
    the folder of the files that `tls.write` has written."""
    access_log = spec.logs / "envoy-access.log"
    return {
        "node": {"id": "aisle", "cluster": "aisle"},
        "admin": {"address": address(spec.service(PROXY.name).metrics_port)},
        # Who was left out, when, and why.
        "cluster_manager": {"outlier_detection": {"event_log_path": str(spec.logs / "envoy-ejections.log")}},
        "static_resources": {
            "listeners": [
                listener(kind.name, spec.listeners[kind.name], callers(kind), secrets, access_log) for kind in KINDS
            ],
            "clusters": [
                cluster(kind.name, [replica.port for replica in spec.replicas(kind.name)], secrets) for kind in KINDS
            ],
        },
    }
