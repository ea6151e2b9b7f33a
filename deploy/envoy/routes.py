"""How long each method may take behind Envoy, and when it is tried again on another replica."""

from typing import Any

from google.protobuf.descriptor import MethodDescriptor

from deploy.envoy.contracts import services

_TIMEOUT_S = 10.0
"""For what the table below does not name: the services' own default for calls without a deadline."""
_TIMEOUTS_S = {
    "EncodeItems": 60.0,
    "UpsertItems": 60.0,
    "DeleteItems": 60.0,
    "CreateGeneration": 60.0,
    "ListItems": 60.0,
    # Every item of a large index is looked at; a hold of all writes is waited for.
    "VerifyGeneration": 1800.0,
    "PromoteGeneration": 1800.0,
    "RollbackGeneration": 1800.0,
}
"""By method: a caller's shorter deadline wins, a longer one is cut."""
_TRIES_S = {"EncodeQueries": 1.0, "EncodeUsers": 1.0, "GetHistory": 1.0}
"""After so long another replica is asked: a hundred times what these take, so that it hangs and is not merely busy."""
_RETRIES = 2

_WRITES = ("Upsert", "Delete", "Write", "Create", "Promote", "Rollback", "Drop", "Forget")
_NEVER_RUN = "connect-failure,refused-stream,reset-before-request"
"""The request did not reach a replica."""
_CUT_OFF = "connect-failure,refused-stream,reset"
"""It may have run, and its answer was lost with the connection."""


def routes(kind: str) -> list[dict[str, Any]]:
    """Every method of the service `kind`, health and reflection; whatever else is asked for does not exist."""
    methods = [method for service in services(kind) for method in service.methods]
    return [
        *(_route(kind, method) for method in methods),
        {"match": {"prefix": "/grpc.health.v1.Health/"}, "route": {"cluster": kind, "timeout": "0s"}},
        {"match": {"prefix": "/grpc.reflection."}, "route": {"cluster": kind, "timeout": "0s"}},
    ]


def _route(kind: str, method: MethodDescriptor) -> dict[str, Any]:
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.client_streaming or method.server_streaming:
        # As long as its caller wants; half of it cannot be tried again.
        return {"match": {"path": path}, "route": {"cluster": kind, "timeout": "0s"}}
    limit = f"{_TIMEOUTS_S.get(method.name, _TIMEOUT_S):g}s"
    action = {
        "cluster": kind,
        # Of callers without a deadline, which speak JSON as a rule; others have theirs.
        "timeout": limit,
        "max_stream_duration": {"max_stream_duration": limit, "grpc_timeout_header_max": limit},
        "retry_policy": _retries(kind, method.name),
    }
    return {"match": {"path": path}, "route": action}


def _retries(kind: str, method: str) -> dict[str, Any]:
    on = _NEVER_RUN if method.startswith(_WRITES) else _CUT_OFF
    if kind != "gateway":
        # The services' word for "not run, or may run twice". From the gateway it means that a service behind it is
        # gone, for which Envoy has tried already.
        on += ",unavailable"
    policy: dict[str, Any] = {
        "retry_on": on,
        "num_retries": _RETRIES,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        # One that is gone has the fewest requests and is chosen again and again: of two replicas, three times out
        # of four.
        "host_selection_retry_max_attempts": 32,
        "retry_back_off": {"base_interval": "0.02s", "max_interval": "0.2s"},
    }
    if method in _TRIES_S:
        policy["per_try_timeout"] = f"{_TRIES_S[method]:g}s"
    return policy
