"""Objects against the schemas of their kinds. Run by the interpreter in build/tools, which alone has the schemas.

Objects as JSON lines on standard input, with what was found wrong on standard output, one line each. Kubernetes' own
kinds are held against the oldest and the newest version that the manifests are for. Custom resources are held against
the schemas in published packages of their operators' models, or, for operators without one, against `schemas/*.json`:
the fields that are used here, written from the operators' API references. A field that no schema knows is a fault.
"""

import json
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

VERSIONS = ("1.31", "1.37")
"""1.31 is the first that has all of what is used by default: preStop `sleep`, `unhealthyPodEvictionPolicy`,
`matchLabelKeys`, native gRPC probes."""

PACKAGES = {
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "cert-manager.io/v1": "cloudcoil.models.cert_manager.v1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
    "security.istio.io/v1": "cloudcoil.models.istio.security.v1",
}


def faults(told: dict[str, Any]) -> Iterator[str]:
    """What is wrong with one object."""
    group, kind = str(told["apiVersion"]), str(told["kind"])
    schema = _custom(group, kind)
    if schema is not None:
        for error in jsonschema.Draft202012Validator(schema).iter_errors(told):
            yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(told, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {'.'.join(map(str, error.absolute_path))}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError:
            yield f"there is no schema for {group} {kind}"


@cache
def _custom(group: str, kind: str) -> dict[str, Any] | None:
    written = Path(__file__).parent / "schemas" / f"{group.replace('/', '_')}_{kind}.json"
    if written.is_file():
        return dict(json.loads(written.read_text()))
    if group not in PACKAGES:
        return None
    model = getattr(import_module(PACKAGES[group]), kind)
    return dict(_closed(model.model_json_schema(by_alias=True)))


def _closed(schema: Any) -> Any:
    """The schema with every object closed to fields that it does not name. The models leave them open."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def main() -> int:
    """1 when anything is wrong."""
    wrong = 0
    for line in sys.stdin:
        told = json.loads(line)
        for fault in faults(told):
            wrong = 1
            metadata = told["metadata"]
            sys.stdout.write(f"{told['kind']} {metadata.get('namespace', '')}/{metadata['name']}: {fault}\n")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
