"""What Prometheus reads of the mesh that runs, as a file of targets that it follows (`file_sd_configs`)."""

import json
from collections.abc import Iterable
from pathlib import Path

from deploy.envoy import process as envoy
from deploy.local import files
from deploy.local.kinds import PROXY
from deploy.local.state import Running

MILVUS = "milvus"
"""Its label `service`."""


def path(folder: Path) -> Path:
    """The file of targets of the mesh that keeps its logs in `folder`."""
    return folder / "targets.json"


def write(folder: Path, services: Iterable[Running], milvus: str | None = None) -> None:
    """Replaces the targets; the label `service` names the service, `instance` tells its replicas apart. `milvus`: where
    (host:port) the server that keeps the index tells its own."""
    targets = [
        {"targets": [f"127.0.0.1:{service.metrics_port}"], "labels": {"service": service.kind.name, **_path(service)}}
        for service in services
    ]
    if milvus is not None:
        targets.append({"targets": [milvus], "labels": {"service": MILVUS}})
    files.write(path(folder), json.dumps(targets, indent=2) + "\n")


def _path(service: Running) -> dict[str, str]:
    return {"__metrics_path__": envoy.METRICS_PATH} if service.kind is PROXY else {}
