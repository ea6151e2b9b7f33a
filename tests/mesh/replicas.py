"""The processes of services that have several: who is given calls, and taking each away in turn."""

import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from signal import SIGCONT, SIGKILL, SIGSTOP
from statistics import quantiles
from threading import Event, Thread
from typing import Any

from aisle.encoder.v1 import query_encoder_pb2, query_encoder_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from tests.mesh.conftest import TIMEOUT_S, Shop
from tests.mesh.search_load import Load, say, told
from tests.support.waiting import eventually

ASKED_MEANWHILE = 40
"""Searches while one is gone: of those that it would have been given, many."""
ENCODING, ENCODED = 12, 360
"""Calls of the query encoders at a time, so that the slow one has several to answer; and in all."""
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


@contextmanager
def slowed(shop: Shop, name: str) -> Iterator[None]:
    """One replica runs for a sixth of the time, and answers in time all the same: as a pod that is throttled."""
    ended = Event()

    def take() -> None:
        while not ended.is_set():
            shop.mesh.signal(name, SIGSTOP)
            time.sleep(0.05)
            shop.mesh.signal(name, SIGCONT)
            time.sleep(0.01)

    taking = Thread(target=take)
    taking.start()
    try:
        yield
    finally:
        ended.set()
        taking.join()


def encoded_while_slow(shop: Shop) -> dict[str, float]:
    """How many calls each query encoder is given while the first of them is slow. Fails when a call does."""
    names = [s.name for s in shop.mesh.spec.replicas("query_encoder")]
    with shop.connect("query_encoder") as channel:
        stub = query_encoder_pb2_grpc.QueryEncoderStub(channel)
        before = _encode(stub)
        with slowed(shop, names[0]):
            had = {name: calls(shop, name) for name in names}
            meanwhile = _encode(stub)
            given = {name: calls(shop, name) - count for name, count in had.items()}
    say(f"{given} while {names[0]} is slow; median and 9 of 10: {_times(before)} before, {_times(meanwhile)} meanwhile")
    return given


def _encode(stub: Any) -> list[float]:
    """What each of many calls took, in ms."""

    def encode(number: int) -> float:
        started = time.perf_counter()
        # No two alike, so that no cache answers.
        request = query_encoder_pb2.EncodeQueriesRequest(queries=[f"desk lamp {started} {number}"])
        stub.EncodeQueries(request, timeout=TIMEOUT_S)
        return (time.perf_counter() - started) * 1000

    with ThreadPoolExecutor(ENCODING) as pool:
        return list(pool.map(encode, range(ENCODED)))


def _times(milliseconds: list[float]) -> str:
    deciles = quantiles(milliseconds, n=10)
    return f"{deciles[4]:.0f} and {deciles[8]:.0f} ms"


def _asked_without(shop: Shop, load: Load, name: str, killed: float) -> None:
    eventually(lambda: not shop.mesh.runs(name), 5)
    eventually(lambda: len(load.since(killed)) >= ASKED_MEANWHILE, 30)
