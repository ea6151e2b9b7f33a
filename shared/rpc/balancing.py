"""How a channel chooses among the replicas of a service, and what it does when one of them fails.

    round_robin          over every address of the target (a list of addresses, or a name in DNS)
    health               a replica that says NOT_SERVING, as one that drains does, gets no new calls (gRFC A17)
    outlier detection    a replica that fails nearly every call it is given is left out for a while (gRFC A50)
    retries              of UNAVAILABLE alone, on the next replica, throttled (gRFC A6)

All of it is gRPC's own, told by the service config. What was measured: docs/balancing.md.
"""

import json
from typing import Any

from shared.rpc.health import REPLICA

_RETRIES: dict[str, Any] = {
    # UNAVAILABLE alone: the one status that says the call did not run, or may run twice unharmed.
    # After 5, 25, 125 and 250 ms, give or take a fifth. At once at first, while the next replica's turn is next: calls
    # of others in between may make it that of the same one again. Longer in all than a replica that ends has left the
    # rotation before its connections end, at which clients look for others (`_LEAVE_S` in server.py). Five is the most
    # that gRPC does.
    "maxAttempts": 5,
    "initialBackoff": "0.005s",
    "maxBackoff": "0.25s",
    "backoffMultiplier": 5,
    "retryableStatusCodes": ["UNAVAILABLE"],
}

_THROTTLING: dict[str, Any] = {
    # Once half the tokens are spent on failures, retries stop and cannot multiply an overload: at most a tenth of the
    # calls that succeed. As many tokens as let fifty calls that ran on a replica that was killed be run on another.
    "maxTokens": 100,
    "tokenRatio": 0.1,
}

_OUTLIERS: dict[str, Any] = {
    # A replica that fails is given calls for two to four seconds more.
    "interval": "2s",
    "baseEjectionTime": "10s",
    "maxEjectionTime": "120s",
    # Looked at before each ejection: of two or three replicas one may be left out, of four or five two.
    "maxEjectionPercent": 30,
    "failurePercentageEjection": {
        # Every status but OK counts as a failure, refusals of too much work too. A replica is broken when hardly
        # anything succeeds; one that refuses a part of its work must keep getting the rest.
        "threshold": 95,
        "enforcementPercentage": 100,
        "minimumHosts": 2,
        # Of one replica in one interval: few, so that a shop of a few searches a second is helped too.
        "requestVolume": 5,
    },
    "childPolicy": [{"round_robin": {}}],
}


def service_config(*, client_balancing: bool) -> str:
    """The service config (JSON) of a channel that balances, or of one to a proxy that does all this in its place: twice
    would multiply retries, and would watch whichever replica the proxy has chosen."""
    if not client_balancing:
        return json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
    return json.dumps(
        {
            "loadBalancingConfig": [{"outlier_detection_experimental": _OUTLIERS}],
            # A server without `grpc.health.v1` counts as healthy.
            "healthCheckConfig": {"serviceName": REPLICA},
            "methodConfig": [{"name": [{}], "retryPolicy": _RETRIES}],
            "retryThrottling": _THROTTLING,
        }
    )
