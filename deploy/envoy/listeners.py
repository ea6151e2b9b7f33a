"""The doors of Envoy, one before each service: who may come in, what is written down, how requests are understood."""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deploy.envoy import tls
from deploy.envoy.clusters import address
from deploy.envoy.contracts import descriptor_set, services
from deploy.envoy.routes import routes
from deploy.local.certificates import spiffe_id

_FILTERS = "type.googleapis.com/envoy.extensions.filters"
_IDLE_S = 900
"""An import may wait for an item encoder to be started (import_patience_s of the gateway)."""

_LOGGED = {
    "time": "%START_TIME%",
    # The path alone: what is asked stands in the body, and nothing of a body is written down.
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ)%",
    "caller": "%DOWNSTREAM_PEER_URI_SAN%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS(SNAKE_STRING)%",
    "ms": "%DURATION%",
    "replica": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "flags": "%RESPONSE_FLAGS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}


def listener(kind: str, port: int, callers: Iterable[str], secrets: Path, access_log: Path) -> dict[str, Any]:
    """The door before `kind`, open to those whose certificates name one of `callers`. The gateway's understands
    gRPC-Web and JSON too."""
    foreign = [_filter("grpc_web", "grpc_web.v3.GrpcWeb"), _transcoder(kind)] if kind == "gateway" else []
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": kind,
        "codec_type": "AUTO",
        "stream_idle_timeout": f"{_IDLE_S}s",
        # A request keeps its id from the first service to the last.
        "preserve_external_request_id": True,
        "access_log": [_access_log(kind, access_log)],
        "http_filters": [_callers(callers), *foreign, _filter("router", "router.v3.Router")],
        "route_config": {"virtual_hosts": [{"name": kind, "domains": ["*"], "routes": routes(kind)}]},
    }
    chain = {
        "transport_socket": tls.downstream(secrets),
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
    }
    return {"name": kind, "address": address(port), "filter_chains": [chain]}


def _callers(names: Iterable[str]) -> dict[str, Any]:
    """Others are told PERMISSION_DENIED, as the services tell them."""
    principals = [{"authenticated": {"principal_name": {"exact": spiffe_id(name)}}} for name in names]
    rules = {"policies": {"callers": {"permissions": [{"any": True}], "principals": principals}}}
    return _filter("rbac", "rbac.v3.RBAC", rules=rules)


def _transcoder(kind: str) -> dict[str, Any]:
    return _filter(
        "grpc_json_transcoder",
        "grpc_json_transcoder.v3.GrpcJsonTranscoder",
        proto_descriptor_bin=base64.b64encode(descriptor_set(kind)).decode(),
        services=[service.full_name for service in services(kind)],
        # POST /aisle.gateway.v1.Gateway/Search with the request as its body.
        auto_mapping=True,
        # Which field is at fault, and when to come again, in the body.
        convert_grpc_status=True,
    )


def _filter(name: str, kind: str, **config: Any) -> dict[str, Any]:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{_FILTERS}.http.{kind}", **config}}


def _access_log(kind: str, path: Path) -> dict[str, Any]:
    health = {"name": ":path", "string_match": {"prefix": "/grpc.health."}, "invert_match": True}
    return {
        "name": "envoy.access_loggers.file",
        # Asked for every second, and not worth a line.
        "filter": {"header_filter": {"header": health}},
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": {"service": kind, **_LOGGED}},
        },
    }
