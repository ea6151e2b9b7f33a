"""The processes of services that have several: who is given calls, and taking each away in turn."""

import time
import urllib.request
from collections.abc import Callable
from signal import SIGKILL

from prometheus_client.parser import text_string_to_metric_families

from tests.mesh.conftest import Shop
from tests.mesh.search_load import Load, say, told
from tests.support.waiting import eventually

ASKED_MEANWHILE = 40
"""Searches while one is gone: of those that it would have been given, many."""
_METHODS = {"gateway": "Search", "query_encoder": "EncodeQueries", "reranker": "Rerank", "vector_retrieval": "Search"}
_DRAIN_S = 8.0
"""Nothing that runs here takes so long, and grace_s is 10."""

Wait = Callable[[str], None]
"""Until the replica of that name has calls again."""


def names(shop: Shop) -> list[str]:
    """The processes of every service that has several, in the order of starting."""
    return [s.name for s in shop.mesh.spec.services if len(shop.mesh.spec.replicas(s.kind.name)) > 1]


def calls(shop: Shop, name: str) -> float:
    """Calls that one replica has answered with OK since it was started, from its own metrics."""
    service = shop.mesh.spec.service(name)
    with urllib.request.urlopen(service.metrics_url, timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    wanted = {"grpc_method": _METHODS[service.kind.name], "grpc_code": "OK"}
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "grpc_server_handled_total" and wanted.items() <= sample.labels.items()
    )


def is_given_calls(shop: Shop, name: str, within_s: float = 10.0) -> None:
    before = calls(shop, name)
    eventually(lambda: calls(shop, name) > before, within_s)


def start_missing(shop: Shop) -> None:
    """Whatever the test before did."""
    for service in shop.mesh.spec.services:
        if not shop.mesh.runs(service.name):
            restart(shop, service.name)


def restart(shop: Shop, name: str) -> None:
    shop.mesh.stop_service(name)
    shop.mesh.start_service(name)


def restart_each(shop: Shop, wait: Wait) -> None:
    for name in names(shop):
        started = time.monotonic()
        shop.mesh.stop_service(name)
        stopped = time.monotonic()
        shop.mesh.start_service(name)
        wait(name)
        ready = time.monotonic() - stopped
        say(f"{name}: {stopped - started:.1f} s to drain and end, {ready:.1f} s until it had calls again")
        assert stopped - started < _DRAIN_S


def kill_each(shop: Shop, load: Load, wait: Wait) -> None:
    for name in names(shop):
        shop.mesh.signal(name, SIGKILL)
        killed = time.monotonic()
        _asked_without(shop, load, name, killed)
        told(f"{name} killed", load.since(killed))
        restart(shop, name)
        wait(name)


def _asked_without(shop: Shop, load: Load, name: str, killed: float) -> None:
    eventually(lambda: not shop.mesh.runs(name), 5)
    eventually(lambda: len(load.since(killed)) >= ASKED_MEANWHILE, 30)
