"""`python -m deploy.local`, as a person at a terminal uses it: a mesh of its own, in a folder of its own."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from aisle.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from deploy.local import client
from deploy.local.spec import DEFAULT_BUNDLE, KINDS, ROOT, free_ports, is_free
from shared.bundles import load_bundle
from shared.catalogue import write_jsonl
from shared.catalogue.generator import generate
from shared.tls import TlsFiles
from tests.support.default_model import need_default_model
from tests.support.second_bundle import shorter

pytestmark = pytest.mark.timeout(150)

SHOP = """sku,name,price
1,Tall oak floor lamp,120
2,Small brass floor lamp,60
,A thing without an id,1
3,Blue wall tile,5
4,Green wall tile,7
4,Red wall tile,9
"""


@dataclass
class Terminal:
    """Runs commands over one folder, on ports that nobody else has."""

    folder: Path
    port_base: int
    env: dict[str, str] = field(default_factory=dict)

    @property
    def catalogue(self) -> list[str]:
        return ["--catalog", str(self.folder / "shop.csv"), "--mapping", "id=sku,title=name"]

    @property
    def ports(self) -> list[str]:
        return ["--port-base", str(self.port_base)]

    def start(self, *command: str) -> subprocess.Popen[str]:
        made = ("CATALOG", "MAPPING", "QUERY", "KEEP", "PORT_BASE", "MODEL", "REGISTRY", "OVERRIDE", "MESH", "REPLICAS")
        outside = ("AISLE_", *made)
        return subprocess.Popen(
            [sys.executable, "-m", "deploy.local", "--folder", str(self.folder), *command],
            cwd=ROOT,
            env={**{n: v for n, v in os.environ.items() if not n.startswith(outside)}, **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str, code: int = 0) -> str:
        started = self.start(*command)
        said, _ = started.communicate(timeout=120)
        assert started.returncode == code, said
        assert "Traceback" not in said
        return said

    def pids(self) -> dict[str, int]:
        told = json.loads((self.folder / "state.json").read_text())
        return {service["name"]: service["process"]["pid"] for service in told["services"]}

    def nothing_runs(self) -> bool:
        free = all(is_free(self.port_base + at) for at in range(len(KINDS)))
        return free and not (self.folder / "state.json").exists()


def port_base() -> int:
    """A base from which on every port of a mesh is free."""
    while True:
        (base,) = free_ports(1)
        if all(is_free(base + offset + at) for offset in (0, 50) for at in range(len(KINDS))):
            return base


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    need_default_model()
    (tmp_path / "shop.csv").write_text(SHOP)
    opened = Terminal(tmp_path, port_base())
    yield opened
    opened.run("down")


def test_the_demo_loads_searches_and_stops_and_the_second_one_does_not_load_again(terminal: Terminal) -> None:
    first = terminal.run("demo", *terminal.catalogue, *terminal.ports)
    assert "rejected: line 4: id: must not be empty" in first
    assert "1 row was rejected" in first
    assert "floor lamp" in first
    assert "similar to" in first
    assert "retrieve" in first
    assert "models: query encoder" in first
    assert first.endswith("stopped\n")
    assert terminal.nothing_runs()
    second = terminal.run("demo", *terminal.catalogue, *terminal.ports, "--query", "red wall tile")
    assert "is in the index already (4 items" in second
    assert "Red wall tile" in second
    assert "Green wall tile" not in second
    assert "Tall oak floor lamp" in second
    assert terminal.nothing_runs()


def test_the_demo_of_a_mesh_with_certificates_and_replicas(terminal: Terminal) -> None:
    shop = [*terminal.catalogue, *terminal.ports, "--query", "red wall tile"]
    said = terminal.run("demo", *shop, "--mesh", "mtls", "--replicas", "reranker=2", "--keep")
    assert "reranker-2" in said
    assert "Red wall tile" in said
    assert "the shopper is forgotten" in said
    assert f"--cert {terminal.folder / 'certificates' / 'operator.crt'}" in said
    assert f"https://127.0.0.1:{terminal.port_base}/" in said
    # One that is up is shown as it is, and not taken for another.
    assert "is up with MESH=mtls" in terminal.run("demo", *shop, "--mesh", "envoy", code=1)
    assert "Red wall tile" in terminal.run("demo", *shop)


def test_up_status_and_down(terminal: Terminal) -> None:
    assert "nothing runs" in terminal.run("down")
    assert "no mesh is up" in terminal.run("status", code=1)
    assert "no mesh is up" in terminal.run("ingest", *terminal.catalogue, code=1)
    up = terminal.run("up", *terminal.catalogue, *terminal.ports)
    assert "the index is empty" in up
    pids = terminal.pids()
    assert "the mesh is up already" in terminal.run("up", *terminal.catalogue, *terminal.ports)
    assert terminal.pids() == pids
    assert "4 rows are in the index" in terminal.run("ingest", *terminal.catalogue)
    status = terminal.run("status")
    for name, pid in pids.items():
        assert f"{name} " in status
        assert f" {pid} " in status
    assert status.count("SERVING") == len(KINDS)
    assert str(terminal.folder / "logs") in status
    # The demo finds its catalogue served, and leaves alone what it did not start.
    demo = terminal.run("demo", *terminal.catalogue, "--query", "floor lamp")
    assert "the mesh is up already" in demo
    assert "is in the index already" in demo
    assert terminal.pids() == pids
    terminal.run("down")
    assert terminal.nothing_runs()


def write_catalogue(path: Path, rows: int) -> None:
    """A catalogue that takes seconds to load, with a row that is no item and one whose id comes twice."""
    items = list(generate(rows - 2))
    write_jsonl([*items, items[0]], path)
    with path.open("a") as file:
        file.write('{"id": "nameless"}\n')


def until_row(terminal: Terminal, row: int, importing: subprocess.Popen[str]) -> int:
    """Waits until `row` of the catalogue is acknowledged and noted; returns which row is."""
    while importing.poll() is None:
        for noted in (terminal.folder / "imports").glob("*.json"):
            if (rows := json.loads(noted.read_text())["rows"]) >= row:
                return int(rows)
        time.sleep(0.02)
    raise AssertionError(f"it ended before row {row}: {importing.communicate()[0]}")


def encoded(terminal: Terminal) -> float:
    """Rows that the item encoder has encoded since it was started, once it has nothing left to do."""
    metrics = f"http://127.0.0.1:{terminal.port_base + 50 + 2}/metrics"
    before = -1.0
    while True:
        with urllib.request.urlopen(metrics, timeout=5) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        found = [s.value for f in families for s in f.samples if s.name == "aisle_engine_batch_items_sum"]
        if sum(found) == before:
            return before
        before = sum(found)
        time.sleep(0.5)


def resumed(said: str) -> int:
    """The row after which an import went on."""
    found = re.search(r"resuming after row ([\d,]+) of ", said)
    assert found, said
    return int(found[1].replace(",", ""))


def test_an_import_that_was_killed_goes_on_where_it_was(terminal: Terminal) -> None:
    rows = 1_500
    shop = terminal.folder / "big.jsonl"
    write_catalogue(shop, rows)
    catalogue = ["--catalog", str(shop)]
    terminal.run("up", *catalogue, *terminal.ports)

    killed = terminal.start("ingest", *catalogue)
    noted = until_row(terminal, 384, killed)
    killed.kill()
    killed.communicate(timeout=10)
    before = encoded(terminal)

    # The second run is cut off too: what it talks to dies.
    cut_off = terminal.start("ingest", *catalogue)
    until_row(terminal, noted + 384, cut_off)
    os.kill(terminal.pids()["gateway"], signal.SIGKILL)
    said, _ = cut_off.communicate(timeout=30)
    assert cut_off.returncode == 1, said
    assert noted <= resumed(said) < rows
    assert "Run it again when the cause is gone: it goes on from there" in said
    terminal.run("up")
    assert encoded(terminal) - before < rows - noted

    before = encoded(terminal)
    said = terminal.run("ingest", *catalogue)
    assert encoded(terminal) - before == rows - 1 - resumed(said), "each item that was not done, once"
    assert resumed(said) >= noted + 384
    assert "1,499 rows are in the index" in said
    assert "of them by an earlier run" in said
    assert "1 × title: must not be empty (line 1500)" in said
    assert list((terminal.folder / "imports").iterdir()) == []
    retrieval = client.facts("vector_retrieval", f"127.0.0.1:{terminal.port_base + 3}")
    assert retrieval.items == rows - 2, "the one whose id comes twice is one item"


def test_a_service_that_died_shows_and_is_started_again(terminal: Terminal) -> None:
    terminal.run("up", *terminal.catalogue, *terminal.ports)
    before = terminal.pids()
    os.kill(before["reranker"], signal.SIGKILL)
    assert "not running" in terminal.run("status", code=1)
    assert "starting again: reranker" in terminal.run("up")
    after = terminal.pids()
    assert after.pop("reranker") != before.pop("reranker")
    assert after == before
    assert terminal.run("status").count("SERVING") == len(KINDS)


def test_replicas_are_started_shown_and_stopped_like_the_rest(terminal: Terminal) -> None:
    up = [*terminal.catalogue, *terminal.ports]
    assert "share a Milvus server" in terminal.run("up", *up, "--replicas", "vector_retrieval=2", code=1)
    terminal.run("up", *up, "--replicas", "reranker=2")
    before = terminal.pids()
    assert set(before) == {*(kind.name for kind in KINDS), "reranker-2"}
    assert f"127.0.0.1:{terminal.port_base + 104} " in terminal.run("status")
    targets = json.loads((terminal.folder / "targets.json").read_text())
    assert [t["labels"]["service"] for t in targets].count("reranker") == 2
    refused = terminal.run("up", "--replicas", "reranker=3", code=1)
    assert "the mesh is up with reranker=2; `make down` first" in refused
    os.kill(before["reranker-2"], signal.SIGKILL)
    assert "not running" in terminal.run("status", code=1)
    assert "starting again: reranker-2" in terminal.run("up")
    assert terminal.run("status").count("SERVING") == len(KINDS) + 1
    terminal.run("down")
    assert terminal.nothing_runs()
    assert json.loads((terminal.folder / "targets.json").read_text()) == []


def test_a_kept_demo_tells_its_addresses_and_is_stopped_by_down(terminal: Terminal) -> None:
    said = terminal.run("demo", *terminal.catalogue, *terminal.ports, "--query", "wall tile", "--keep")
    assert f"127.0.0.1:{terminal.port_base}" in said
    assert "buf curl" in said
    assert "make down" in said
    assert set(terminal.pids()) == {kind.name for kind in KINDS}
    another = terminal.folder / "another.csv"
    another.write_text(SHOP + "9,Another thing,1\n")
    other = ["--catalog", str(another), "--mapping", "id=sku,title=name"]
    assert "another mesh is up" in terminal.run("demo", *other, "--keep", code=1)
    # Beside it, another catalogue has its own index and its own ports.
    beside = terminal.run("demo", *other, "--query", "another thing")
    assert "on free ports" in beside
    assert "Another thing" in beside
    assert terminal.run("status").count("SERVING") == len(KINDS)


def test_a_service_that_cannot_start_is_told_with_its_log_and_nothing_stays(terminal: Terminal) -> None:
    terminal.env["AISLE_RERANKER_BUNDLE"] = "/nowhere"
    said = terminal.run("up", *terminal.catalogue, *terminal.ports, code=1)
    assert "reranker ended while starting (exit code 1)" in said
    assert "/nowhere" in said
    assert terminal.nothing_runs()


def test_a_port_in_use_is_told_before_anything_starts(terminal: Terminal) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", terminal.port_base + 4))):
        said = terminal.run("up", *terminal.catalogue, *terminal.ports, code=1)
    assert f"port {terminal.port_base + 4} (reranker, gRPC; set AISLE_RERANKER_PORT)" in said
    assert "PORT_BASE" in said
    assert terminal.nothing_runs()


@pytest.mark.timeout(240)
def test_a_mesh_changes_its_model_while_it_is_searched(terminal: Terminal, tmp_path: Path) -> None:
    model = shorter(DEFAULT_BUNDLE, tmp_path / "model")
    old, version = (load_bundle(bundle).manifest.version for bundle in (DEFAULT_BUNDLE, model))
    assert "no mesh is up" in terminal.run("reindex", "--model", str(model), code=1)
    assert "MODEL=" in terminal.run("reindex", code=1)
    terminal.run("up", *terminal.catalogue, *terminal.ports)
    assert "no model bundle in /nowhere" in terminal.run("reindex", "--model", "/nowhere", code=1)
    terminal.run("ingest", *terminal.catalogue)
    before = terminal.pids()

    # Interrupted before anything is done, which leaves the mesh as it was.
    first = terminal.start("reindex", "--model", str(model))
    assert first.stdout is not None
    assert "serving on" in first.stdout.readline()
    first.send_signal(signal.SIGINT)
    assert "Traceback" not in first.communicate(timeout=60)[0]
    assert first.returncode == 128 + signal.SIGINT
    assert terminal.pids() == before

    with searching(f"127.0.0.1:{terminal.port_base}") as answers:
        said = terminal.run("reindex", "--model", str(model))
    assert "is live" in said
    assert "reranker, query_encoder, item_encoder had to start again" in said.replace("\n", " ")
    assert {type(answer) for answer in answers} == {gateway_pb2.SearchResponse}
    assert {answer.results[0].item.title for answer in answers} == {"Red wall tile"}
    versions = {(a.info.model_versions.query_encoder, a.info.model_versions.index) for a in answers}
    assert {(query, index) for query, index in versions if query} == {(old, old), (version, version)}
    assert terminal.pids()["gateway"] == before["gateway"]
    assert "nothing had to start again" in terminal.run("reindex", "--model", str(model))

    terminal.run("down")
    assert "the index is empty" not in terminal.run("up", *terminal.catalogue, *terminal.ports)
    assert terminal.run("status").count(version[:12]) == 4


@contextlib.contextmanager
def searching(address: str, callers: int = 1, shown: TlsFiles | None = None) -> Iterator[list[Any]]:
    """Searches all the time until the block ends, with the certificate `shown`; the answers, and the errors among
    them."""
    answers: list[Any] = []
    ended = threading.Event()

    def search() -> None:
        with client.presenting(shown), client.channel(address) as channel:
            stub = gateway_pb2_grpc.GatewayStub(channel)
            while not ended.is_set():
                try:
                    answers.append(stub.Search(gateway_pb2.SearchRequest(query="red wall tile"), timeout=10))
                except grpc.RpcError as error:
                    answers.append(error)

    threads = [threading.Thread(target=search) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", ["catalogue:", "serving on"], ids=["starting", "half started"])
def test_an_interrupted_demo_leaves_nothing_behind(terminal: Terminal, number: signal.Signals, after: str) -> None:
    demo = terminal.start("demo", *terminal.catalogue, *terminal.ports)
    assert demo.stdout is not None
    for line in demo.stdout:
        if after in line:
            break
    time.sleep(0.3)
    demo.send_signal(number)
    said = demo.communicate(timeout=60)[0]
    assert demo.returncode == 128 + number, said
    assert "Traceback" not in said
    assert terminal.nothing_runs()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["demo", "--catalog", "/nowhere.csv"], "there is no catalogue file /nowhere.csv"),
        (["demo", "--mapping", "id=x"], "give the catalogue too"),
    ],
)
def test_what_cannot_be_is_one_clear_line(terminal: Terminal, arguments: list[str], what: str) -> None:
    said = terminal.run(*arguments, code=1)
    assert what in said
    assert said.count("\n") == 1
