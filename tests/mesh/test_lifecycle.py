"""Start, health, reflection, metrics, drain: what those who run the services see."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.common.v1 import model_pb2, priority_pb2
from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from deploy.local import client
from deploy.local.spec import KINDS, ROOT, free_ports
from tests.mesh.conftest import Shop

NAMES = [kind.name for kind in KINDS]
SERVICES = {
    "query_encoder": ["aisle.encoder.v1.QueryEncoder"],
    "item_encoder": ["aisle.encoder.v1.ItemEncoder"],
    "vector_retrieval": ["aisle.retrieval.v1.VectorRetrieval"],
    "reranker": ["aisle.rerank.v1.Reranker"],
    "gateway": ["aisle.gateway.v1.Gateway", "aisle.gateway.v1.Catalog"],
    "user_events": ["aisle.events.v1.UserEvents"],
}


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", NAMES)
def test_health_answers_for_each_service_and_for_the_process(shop: Shop, name: str) -> None:
    assert [shop.health(name, service) for service in ["", *SERVICES[name]]] == ["SERVING"] * (len(SERVICES[name]) + 1)
    assert shop.health(name, "aisle.unknown.v1.Service") == "no answer"


@pytest.mark.parametrize("name", NAMES)
def test_reflection_lists_what_is_served(shop: Shop, name: str) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(shop.channels[name])
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = list(stub.ServerReflectionInfo(iter([asked]), timeout=5))
    listed = {service.name for service in answer.list_services_response.service}
    assert {*SERVICES[name], "grpc.health.v1.Health"} <= listed


@pytest.mark.parametrize("name", NAMES)
def test_metrics_of_every_method_are_there_before_its_first_call(shop: Shop, name: str) -> None:
    with urllib.request.urlopen(shop.mesh.spec.service(name).metrics_url, timeout=5) as response:
        text = response.read().decode()
    for service in SERVICES[name]:
        assert f'aisle_health_serving{{grpc_service="{service}"}} 1.0' in text
        assert f'grpc_service="{service}"' in text
    assert 'grpc_code="Unavailable"' in text
    if shop.mesh.spec.service(name).kind.has_bundle:
        assert "aisle_engine_batch_items_count" in text


@pytest.mark.parametrize("name", NAMES)
def test_print_config_shows_settings_and_no_secret(name: str) -> None:
    variable = f"AISLE_{name.upper()}_PORT"
    printed = subprocess.run(
        [sys.executable, "-m", f"services.{name}", "--print-config", "--grace-s", "3"],
        cwd=ROOT,
        env={**os.environ, variable: "1234", "AISLE_VECTOR_RETRIEVAL_PASSWORD": "hunter2"},
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    settings = json.loads(printed.stdout)
    assert (settings["port"], settings["grace_s"]) == (1234, 3)
    assert "hunter2" not in printed.stdout


def test_a_port_in_use_is_one_clear_line(shop: Shop) -> None:
    taken = shop.mesh.spec.service("reranker").port
    ended = subprocess.run(
        [sys.executable, "-m", "services.gateway", "--port", str(taken), "--metrics-port", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 1
    assert f"port {taken} on 127.0.0.1 is in use" in ended.stderr
    assert "Traceback" not in ended.stderr


@dataclass
class Alone:
    """One item encoder beside the mesh, to be stopped."""

    process: subprocess.Popen[bytes]
    address: str

    def health(self) -> str:
        return client.health(self.address, "aisle.encoder.v1.ItemEncoder")


@contextmanager
def item_encoder(log: Path, *flags: str) -> Iterator[Alone]:
    port, metrics = free_ports(2)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "services.item_encoder", "--port", str(port), "--metrics-port", str(metrics)),
                *flags,
            ],
            cwd=ROOT,
            stdout=out,
            stderr=out,
        )
    try:
        alone = Alone(process, f"127.0.0.1:{port}")
        until = time.monotonic() + 45
        while alone.health() != "SERVING":
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield alone
    finally:
        process.kill()
        process.wait()


def test_a_drain_flips_health_first_then_refuses_then_lets_running_calls_finish(shop: Shop, tmp_path: Path) -> None:
    words = "with many more words of its own " * 40
    items = [item_pb2.Item(id=str(i), title=f"long item {i}", description=f"{i} {words}") for i in range(256)]
    request = item_encoder_pb2.EncodeItemsRequest(items=items, priority=priority_pb2.PRIORITY_BULK)
    with item_encoder(tmp_path / "log", "--drain-delay-s", "1", "--grace-s", "30") as alone:
        with grpc.insecure_channel(alone.address) as channel, grpc.insecure_channel(alone.address) as late:
            stub = item_encoder_pb2_grpc.ItemEncoderStub(channel)
            # Several seconds of work, so that some still runs when new calls are refused.
            running = [stub.EncodeItems.future(request, timeout=50) for _ in range(3)]
            time.sleep(0.3)
            alone.process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            while alone.health() == "SERVING":
                assert time.monotonic() - started < 0.9, "health must flip before calls are refused"
                time.sleep(0.02)
            # Health has flipped, calls are still taken: balancers need a moment to notice.
            assert item_encoder_pb2_grpc.ItemEncoderStub(late).GetModel(model_pb2.GetModelRequest(), timeout=5)
            time.sleep(max(0.0, 1.6 - (time.monotonic() - started)))
            with pytest.raises(grpc.RpcError) as refused, grpc.insecure_channel(alone.address) as fresh:
                item_encoder_pb2_grpc.ItemEncoderStub(fresh).GetModel(model_pb2.GetModelRequest(), timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert not all(call.done() for call in running), "a call must outlast the refusals to mean anything"
            assert [len(call.result().errors) for call in running] == [0, 0, 0]
        assert alone.process.wait(timeout=15) == 0


def test_a_second_signal_does_not_wait(shop: Shop, tmp_path: Path) -> None:
    with item_encoder(tmp_path / "log", "--drain-delay-s", "30") as alone:
        alone.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert alone.process.poll() is None
        alone.process.send_signal(signal.SIGTERM)
        assert alone.process.wait(timeout=10) == -signal.SIGTERM
