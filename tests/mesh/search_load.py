"""A steady load of searches on a mesh, and what its callers saw."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import grpc
from aisle.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from tests.mesh.conftest import TIMEOUT_S, Shop

CALLERS = 4
ITEMS = 60
"""To search among: what is found does not matter here."""
PAUSE_S = 0.05
"""Between two searches of a caller: some fifty a second at most, which leaves a small machine room to start models."""


@dataclass(frozen=True)
class Answer:
    """One search as its caller saw it; `degraded` is empty for a whole answer, `failed` for any answer."""

    at: float
    seconds: float
    failed: str = ""
    degraded: tuple[str, ...] = ()


class Load:
    """Searches all the time, no two alike, so that no cache answers."""

    _queries = count()

    def __init__(self, shop: Shop, timeout_s: float) -> None:
        self.answers: list[Answer] = []
        self._shop = shop
        self._timeout_s = timeout_s
        self._ended = threading.Event()

    def run(self) -> None:
        with self._shop.connect("gateway") as channel:
            stub = gateway_pb2_grpc.GatewayStub(channel)
            while not self._ended.wait(PAUSE_S):
                self.answers.append(self._search(stub))

    def _search(self, stub: Any) -> Answer:
        request = gateway_pb2.SearchRequest(query=f"desk lamp number {next(self._queries)}")
        at = time.monotonic()
        try:
            info = stub.Search(request, timeout=self._timeout_s).info
        except grpc.RpcError as error:
            return Answer(at, time.monotonic() - at, failed=f"{error.code().name}: {error.details()}")
        degraded = tuple(gateway_pb2.DegradedReason.Name(d.reason) for d in info.degraded)
        return Answer(at, time.monotonic() - at, degraded=degraded)

    def end(self) -> None:
        self._ended.set()

    def since(self, at: float) -> list[Answer]:
        """What was asked at `at` or later and has been answered."""
        return [answer for answer in tuple(self.answers) if answer.at >= at]


@contextmanager
def under_load(shop: Shop, timeout_s: float = TIMEOUT_S) -> Iterator[Load]:
    load = Load(shop, timeout_s)
    threads = [threading.Thread(target=load.run) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.end()
        for thread in threads:
            thread.join()


def outcomes(answers: list[Answer]) -> Counter[str]:
    return Counter(answer.failed or ",".join(answer.degraded) or "whole" for answer in answers)


def share_degraded(answers: list[Answer]) -> float:
    assert answers
    return sum(bool(answer.degraded) for answer in answers) / len(answers)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def told(what: str, answers: list[Answer]) -> None:
    slowest = max((answer.seconds for answer in answers), default=0.0)
    say(f"{what}: {dict(outcomes(answers))}, slowest {slowest * 1000:.0f} ms")
