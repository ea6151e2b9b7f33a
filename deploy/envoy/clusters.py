"""The replicas of each service as Envoy sees them: whom it asks, whom it leaves out, and how much it lets through."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.envoy import tls

_HTTP = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_HEALTH = {
    # Two looks in a row: a busy machine is late once. Less than the replicas' drain_delay_s together.
    "interval": "0.5s",
    # Before the first call too; a minute is the default, for which all replicas that start after Envoy would count as
    # unhealthy, and none could be told from another.
    "no_traffic_interval": "0.5s",
    "timeout": "1s",
    "unhealthy_threshold": 2,
    "healthy_threshold": 1,
    # As probes ask: a replica that drains says so at once. Where all say no, for a store that is away, all are called
    # as before (panic), and callers hear from one why they fail.
    "grpc_health_check": {},
}

_OUTLIERS = {
    # Errors that say "this replica": INTERNAL counts as 500, UNAVAILABLE and a connection that breaks as 503, a try
    # that takes too long as 504. A caller's mistakes and refusals of too much work do not.
    "consecutive_5xx": 5,
    "consecutive_gateway_failure": 5,
    "enforcing_consecutive_gateway_failure": 100,
    "interval": "1s",
    "base_ejection_time": "10s",
    "max_ejection_time": "120s",
    # A third of them at most; but one, however few there are.
    "max_ejection_percent": 30,
    "always_eject_one_host": True,
    # A replica that fails every call may well say that it is healthy.
    "successful_active_health_check_uneject_host": False,
}

_CHOOSING = {
    # Share of healthy replicas below which all are called: where none is left. At half of them, the default, one of
    # three that is ejected and one that is late with word of its health would bring back the one that fails.
    "healthy_panic_threshold": {"value": 20.0},
    # Who was ejected, or drains, is asked no more at once. By default, changes wait up to a second for others.
    "update_merge_window": "0s",
}

_BREAKERS = {
    "thresholds": [
        {
            # More than a replica's own queue holds: it refuses with a reason, Envoy without one.
            "max_requests": 1024,
            "max_pending_requests": 256,
            # A fifth of what runs may be run again, so that retries cannot multiply an overload.
            "retry_budget": {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 10},
            "track_remaining": True,
        }
    ]
}


def cluster(kind: str, ports: Sequence[int], secrets: Path) -> dict[str, Any]:
    """The replicas of `kind`, on `ports` of this machine."""
    # A peer that vanished without closing its connection is noticed within 15 s.
    http2 = {"http2_protocol_options": {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}}
    return {
        "name": kind,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {
            "cluster_name": kind,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}} for port in ports]}],
        },
        "health_checks": [_HEALTH],
        "common_lb_config": _CHOOSING,
        "outlier_detection": _OUTLIERS,
        "circuit_breakers": _BREAKERS,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": _HTTP, "explicit_http_config": http2}
        },
        "transport_socket": tls.upstream(kind, secrets),
    }


def address(port: int) -> dict[str, Any]:
    """`port` of this machine."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
