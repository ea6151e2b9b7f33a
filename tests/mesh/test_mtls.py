"""The mesh with mTLS and nothing between its services."""

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import grpc
import pytest
from aisle.encoder.v1 import query_encoder_pb2, query_encoder_pb2_grpc
from aisle.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from deploy.local import client
from deploy.local.mesh import Mesh
from deploy.local.spec import ROOT, MeshSpec, free_ports
from shared.catalogue.generator import generate
from shared.rpc.health import LIVE
from shared.rpc.items import item_to_proto
from shared.rpc.tls import channel_credentials
from tests.mesh.conftest import BUNK_BEDS, TIMEOUT_S, Shop, load, special_items
from tests.support.default_model import need_default_model

(HEALTH_PORT,) = free_ports(1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    need_default_model()
    folder = tmp_path_factory.mktemp("mtls")
    env = {
        "query_encoder": {"AISLE_QUERY_ENCODER_HEALTH_PORT": str(HEALTH_PORT)},
        # Time enough on a machine that does other things.
        "gateway": {"AISLE_GATEWAY_RERANK_COUNT": "4", "AISLE_GATEWAY_RERANK_CAP_S": "5"},
    }
    index = folder / "index" / "milvus.db"
    spec = MeshSpec.on_free_ports(index=index, folder=folder, env=env, replicas={"reranker": 2}, mesh="mtls")
    with Mesh(spec) as mesh:
        running = Shop(mesh)
        load(running, special_items() + [item_to_proto(item) for item in islice(generate(), 20)])
        yield running
        running.close()


def encode(channel: grpc.Channel) -> Any:
    request = query_encoder_pb2.EncodeQueriesRequest(queries=["lamp"])
    return query_encoder_pb2_grpc.QueryEncoderStub(channel).EncodeQueries(request, timeout=TIMEOUT_S)


def as_(shop: Shop, name: str) -> grpc.ChannelCredentials:
    identities = shop.mesh.spec.identities
    assert identities is not None
    return channel_credentials(identities.files(name).read())


def test_services_call_each_other(shop: Shop) -> None:
    found = shop.search(page_size=3)
    assert found.results[0].item.id in BUNK_BEDS
    assert not found.info.degraded


def test_a_caller_in_plain_text_is_refused(shop: Shop) -> None:
    with grpc.insecure_channel(shop.mesh.address("gateway")) as channel, pytest.raises(grpc.RpcError) as refused:
        gateway_pb2_grpc.GatewayStub(channel).Search(gateway_pb2.SearchRequest(query="lamp"), timeout=TIMEOUT_S)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_service_without_a_road_is_denied(shop: Shop) -> None:
    address = shop.mesh.address("query_encoder")
    with grpc.secure_channel(address, as_(shop, "gateway")) as channel:
        assert encode(channel).embeddings.dimensions > 0
    with grpc.secure_channel(address, as_(shop, "reranker")) as channel, pytest.raises(grpc.RpcError) as refused:
        encode(channel)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "spiffe://aisle.local/reranker" in str(refused.value.details())


def test_probes_without_a_certificate_learn_health_and_nothing_else(shop: Shop) -> None:
    address = f"127.0.0.1:{HEALTH_PORT}"
    assert client.health(address) == "SERVING"
    assert client.health(address, LIVE) == "SERVING"
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
        encode(channel)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_certificate_that_cannot_be_read_is_named() -> None:
    missing = {f"AISLE_USER_EVENTS_MTLS_{name}_FILE": f"/nowhere/{name}.pem" for name in ("CERTIFICATE", "KEY", "CA")}
    ended = subprocess.run(
        [sys.executable, "-m", "services.user_events", "--port", "0", "--metrics-port", "0", "--uri", ":memory:"],
        cwd=ROOT,
        env={**os.environ, **missing},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert ended.returncode == 1
    assert "/nowhere/CERTIFICATE.pem cannot be read" in ended.stdout + ended.stderr
