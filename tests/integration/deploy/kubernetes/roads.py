"""Who may talk to whom, worked out from NetworkPolicies as Kubernetes defines them.

https://kubernetes.io/docs/concepts/services-networking/network-policies/: policies add up; a pod that no policy selects
in a direction is open in it; a connection needs its source's egress and its destination's ingress.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.kubernetes.build import Object
from tests.integration.deploy.kubernetes.view import COMPONENT, NAMESPACE, View, selects

Road = tuple[str, str, int]
"""From, to, port."""


@dataclass(frozen=True)
class Party:
    """A kind of pod: this project's, or one that it meets. `ports` are those where it listens, by name."""

    name: str
    namespace: Mapping[str, str]
    labels: Mapping[str, str]
    ports: Mapping[str, int] = field(default_factory=dict)


def _namespace(name: str, **labels: str) -> dict[str, str]:
    return {"kubernetes.io/metadata.name": name, **labels}


def parties(view: View) -> list[Party]:
    """Everybody. Where Milvus and PostgreSQL are not the operators', they are outside of the cluster."""
    own = [Party(pod.name, _namespace(NAMESPACE), pod.labels, pod.ports()) for pod in view.pods]
    met = [
        Party("a backend", _namespace("shop", **{"aisle/client": "true"}), {}, {"any": 8080}),
        Party("a stranger", _namespace("other"), {}, {"any": 8080}),
        Party("prometheus", _namespace("monitoring"), {"app.kubernetes.io/name": "prometheus"}, {"any": 9090}),
        Party("dns", _namespace("kube-system"), {"k8s-app": "kube-dns"}, {"udp": 53}),
        Party("istiod", _namespace("istio-system"), {"app": "istiod"}, {"xds": 15012}),
        Party("the internet", {}, {}, {"https": 443, "http": 80, "api": 6443}),
        Party("milvus", _namespace("milvus"), {}, {"proxy": 19530, "metrics": 9091, "minio": 9000}),
        Party("cnpg", _namespace("cnpg-system"), {"app.kubernetes.io/name": "cloudnative-pg"}, {"webhook": 9443}),
    ]
    if view.of("Cluster"):
        labels = {"cnpg.io/cluster": "aisle-events"}
        met.append(
            Party("postgres", _namespace(NAMESPACE), labels, {"postgres": 5432, "status": 8000, "metrics": 9187})
        )
    return [*own, *met]


def roads(view: View) -> set[Road]:
    """Every road with one of this project's pods, or its stores', at one end. Where Milvus' own pods go, and who comes
    to it where it is not the operator's, is not ours to say."""
    policies = view.of("NetworkPolicy")
    everybody = parties(view)
    own = {pod.name for pod in view.pods}
    ours = own | {"postgres"} | ({"milvus"} if view.of("Milvus") else set())
    return {
        (source.name, target.name, port)
        for source in everybody
        for target in everybody
        if (source.name in ours - {"milvus"} or target.name in ours) and source.name not in {target.name, "milvus"}
        for name, port in target.ports.items()
        if _allowed(policies, "egress", source, target, name, port)
        and _allowed(policies, "ingress", target, source, name, port)
    }


def _allowed(
    policies: Sequence[Object], direction: str, selected: Party, peer: Party, port_name: str, port: int
) -> bool:
    applying = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == selected.namespace.get("kubernetes.io/metadata.name")
        and selects(policy["spec"]["podSelector"], selected.labels)
        and direction.capitalize() in policy["spec"]["policyTypes"]
    ]
    if not applying:
        return True
    side = "from" if direction == "ingress" else "to"
    return any(
        _ports(rule.get("ports"), port_name, port) and _peers(rule.get(side), selected, peer)
        for spec in applying
        for rule in spec.get(direction, ())
    )


def _ports(ports: Iterable[Mapping[str, Any]] | None, name: str, number: int) -> bool:
    return ports is None or any(told["port"] in (name, number) for told in ports)


def _peers(peers: Iterable[Mapping[str, Any]] | None, selected: Party, peer: Party) -> bool:
    if peers is None:
        return True
    return any(
        (
            selects(told["namespaceSelector"], peer.namespace)
            if "namespaceSelector" in told
            else peer.namespace == selected.namespace
        )
        and selects(told.get("podSelector", {}), peer.labels)
        for told in peers
    )


def design(view: View) -> set[Road]:
    """The roads that there should be; the table that the policies are compared with."""
    parts, servers = view.mix.parts, {pod.component for pod in view.servers}
    everyone = {pod.component for pod in view.pods}
    by_component: set[Road] = {
        ("gateway", "query-encoder", 50052),
        ("gateway", "item-encoder", 50053),
        ("gateway", "vector-retrieval", 50054),
        ("gateway", "reranker", 50055),
        ("gateway", "user-events", 50056),
        ("reindex", "vector-retrieval", 50054),
        ("reindex", "item-encoder", 50053),
        ("trainer", "user-events", 50056),
        ("a backend", "gateway", 50051),
        ("a backend", "user-events", 50056),
        ("vector-retrieval", "milvus", 19530),
        *(("prometheus", name, 9101 + _ORDER.index(name)) for name in servers),
        *((name, "dns", 53) for name in everyone),
    }
    if "milvus-operator" in parts:
        by_component |= {("prometheus", "milvus", 9091)}
    if "postgres-operator" in parts:
        by_component |= {(name, "postgres", 5432) for name in ("user-events", "user-events-jobs", "cnpg")}
        by_component |= {("cnpg", "postgres", 8000), ("prometheus", "postgres", 9187), ("postgres", "dns", 53)}
        # The API server and backups: neither has a selector.
        by_component |= {("postgres", "the internet", port) for port in (443, 6443)}
    if "istio" in parts:
        by_component |= {(name, "istiod", 15012) for name in everyone}
    if "object-store" in parts:
        by_component |= {(name, "the internet", 443) for name in ("query-encoder", "item-encoder", "reranker")}
    # Of a component with several sets of pods (a canary, the item encoder of a re-index), each has its roads.
    return {
        (source, target, port)
        for left, right, port in by_component
        for source in _pods(view, left)
        for target in _pods(view, right)
    }


_ORDER = ("gateway", "query-encoder", "item-encoder", "vector-retrieval", "reranker", "user-events")


def _pods(view: View, component: str) -> Sequence[str]:
    return [pod.name for pod in view.pods if pod.labels.get(COMPONENT) == component] or [component]
