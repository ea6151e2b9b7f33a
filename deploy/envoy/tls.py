"""mTLS on both sides of Envoy. Certificates come as secrets from a file, which Envoy reads again when they change."""

import json
from pathlib import Path
from typing import Any

from deploy.local.certificates import dns_name, spiffe_id
from deploy.local.files import write as write_file
from shared.tls import TlsFiles

_IDENTITY = "identity"
_AUTHORITY = "authority"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


def write(files: TlsFiles, folder: Path) -> None:
    """Writes into `folder` the secrets that the functions below name: who Envoy is, and whom it trusts."""
    watched = {"watched_directory": {"path": str(files.certificate.parent)}}
    identity = {"certificate_chain": {"filename": str(files.certificate)}, "private_key": {"filename": str(files.key)}}
    authority = {"trusted_ca": {"filename": str(files.authority)}}
    contents = {
        _IDENTITY: {"tls_certificate": {**identity, **watched}},
        _AUTHORITY: {"validation_context": {**authority, **watched}},
    }
    for name, content in contents.items():
        resource = {"@type": f"{_TLS}.Secret", "name": name, **content}
        write_file(_file(name, folder), json.dumps({"resources": [resource]}, indent=2))


def downstream(secrets: Path) -> dict[str, Any]:
    """For listeners: nobody without a certificate gets as far as a request."""
    common = {"alpn_protocols": ["h2", "http/1.1"], **_identity(secrets)}
    common["validation_context_sds_secret_config"] = _secret(_AUTHORITY, secrets)
    context = {"require_client_certificate": True, "common_tls_context": common}
    return _socket({"@type": f"{_TLS}.DownstreamTlsContext", **context})


def upstream(kind: str, secrets: Path) -> dict[str, Any]:
    """For the connections to replicas of `kind`, which must prove that they are."""
    name = {"san_type": "URI", "matcher": {"exact": spiffe_id(kind)}}
    combined = {
        "default_validation_context": {"match_typed_subject_alt_names": [name]},
        "validation_context_sds_secret_config": _secret(_AUTHORITY, secrets),
    }
    common = {"alpn_protocols": ["h2"], **_identity(secrets), "combined_validation_context": combined}
    context = {"sni": dns_name(kind), "common_tls_context": common}
    return _socket({"@type": f"{_TLS}.UpstreamTlsContext", **context})


def _identity(secrets: Path) -> dict[str, Any]:
    return {"tls_certificate_sds_secret_configs": [_secret(_IDENTITY, secrets)]}


def _secret(name: str, folder: Path) -> dict[str, Any]:
    source = {"path_config_source": {"path": str(_file(name, folder))}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def _file(name: str, folder: Path) -> Path:
    return folder / f"{name}.json"


def _socket(context: dict[str, Any]) -> dict[str, Any]:
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}
