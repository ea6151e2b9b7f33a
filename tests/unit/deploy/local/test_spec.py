"""Ports, targets and what each service is told."""

import contextlib
import re
import socket
from pathlib import Path

import pytest

from deploy.local.errors import LocalError, PortInUseError
from deploy.local.mesh import Mesh
from deploy.local.spec import KINDS, MeshSpec, free_ports, is_free, parse_replicas

INDEX = Path("/somewhere/milvus.db")


def spec(port_base: int | None = None, **environ: str) -> MeshSpec:
    return MeshSpec.default(index=INDEX, port_base=port_base, environ=environ)


def ports(mesh: MeshSpec) -> dict[str, tuple[int, int]]:
    return {service.name: (service.port, service.metrics_port) for service in mesh.services}


def test_the_usual_ports_are_the_services_own_defaults() -> None:
    assert ports(spec()) == {
        "gateway": (50051, 9101),
        "query_encoder": (50052, 9102),
        "item_encoder": (50053, 9103),
        "vector_retrieval": (50054, 9104),
        "reranker": (50055, 9105),
        "user_events": (50056, 9106),
    }


def test_a_base_moves_them_all_and_a_variable_moves_one() -> None:
    moved = spec(51000, AISLE_RERANKER_PORT="7000")
    assert ports(moved)["gateway"] == (51000, 51050)
    assert ports(moved)["reranker"] == (7000, 51054)
    told = moved.environment(moved.service("gateway"))
    assert told["AISLE_GATEWAY_PORT"] == "51000"
    assert told["AISLE_GATEWAY_RERANKER_TARGET"] == "127.0.0.1:7000"
    assert told["AISLE_GATEWAY_VECTOR_RETRIEVAL_TARGET"] == "127.0.0.1:51003"


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_is_none_is_named(port: str) -> None:
    with pytest.raises(LocalError, match=f"AISLE_GATEWAY_PORT is '{port}'"):
        spec(AISLE_GATEWAY_PORT=port)


def test_what_the_caller_says_wins_where_it_is_the_callers_to_say() -> None:
    mesh = spec(
        AISLE_GATEWAY_RERANKER_TARGET="elsewhere:1",
        AISLE_RERANKER_BUNDLE="/my/bundle",
        AISLE_VECTOR_RETRIEVAL_URI="http://milvus:19530",
    )
    assert mesh.environment(mesh.service("gateway"))["AISLE_GATEWAY_RERANKER_TARGET"] == "elsewhere:1"
    assert mesh.environment(mesh.service("reranker"))["AISLE_RERANKER_BUNDLE"] == "/my/bundle"
    retrieval = mesh.environment(mesh.service("vector_retrieval"))
    assert retrieval["AISLE_VECTOR_RETRIEVAL_URI"] == "http://milvus:19530"
    assert "AISLE_VECTOR_RETRIEVAL_BUNDLE" not in retrieval


def test_a_mesh_beside_others_takes_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISLE_GATEWAY_PORT", "50051")
    beside = MeshSpec.on_free_ports(index=INDEX, folder=Path("/tmp/mesh"), env={"reranker": {"AISLE_RERANKER_X": "1"}})
    told = beside.environment(beside.service("gateway"))
    assert told["AISLE_GATEWAY_PORT"] != "50051"
    assert beside.environment(beside.service("reranker"))["AISLE_RERANKER_X"] == "1"
    taken = [port for pair in ports(beside).values() for port in pair]
    assert len(set(taken)) == 2 * len(KINDS)


def test_ports_move_with_what_is_known_of_them() -> None:
    moved = spec().at_ports({"gateway": (1, 2)})
    assert ports(moved)["gateway"] == (1, 2)
    assert ports(moved)["reranker"] == (50055, 9105)


def test_a_port_in_use_is_named_with_its_service_and_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").touch()
    mesh = MeshSpec.on_free_ports(index=tmp_path / "milvus.db", folder=tmp_path, bundle=tmp_path)
    reranker = mesh.service("reranker")
    with contextlib.closing(socket.create_server(("127.0.0.1", reranker.port))):
        assert not is_free(reranker.port)
        with pytest.raises(PortInUseError) as refused:
            Mesh(mesh).start()
    assert refused.value.ports == [reranker.port]
    assert f"port {reranker.port} (reranker, gRPC; set AISLE_RERANKER_PORT)" in str(refused.value)
    assert "PORT_BASE" in str(refused.value)
    assert not list(tmp_path.glob("logs/*"))


def test_a_port_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").touch()
    (port,) = free_ports(1)
    mesh = MeshSpec.on_free_ports(index=tmp_path / "milvus.db", folder=tmp_path, bundle=tmp_path)
    with pytest.raises(PortInUseError, match=f"port {port} is given to two"):
        Mesh(mesh.at_ports({"gateway": (port, port)})).start()


def test_a_missing_bundle_says_how_to_make_it(tmp_path: Path) -> None:
    mesh = MeshSpec.on_free_ports(index=tmp_path / "milvus.db", folder=tmp_path, bundle=tmp_path)
    with pytest.raises(LocalError, match="make models"):
        Mesh(mesh).start()


def test_replicas_have_names_ports_and_one_target() -> None:
    scaled = spec().scaled({"query_encoder": 3, "reranker": 2})
    assert [(s.name, s.port, s.metrics_port) for s in scaled.replicas("query_encoder")] == [
        ("query_encoder", 50052, 9102),
        ("query_encoder-2", 50152, 9202),
        ("query_encoder-3", 50252, 9302),
    ]
    everything = [port for pair in ports(scaled).values() for port in pair]
    assert len(set(everything)) == 2 * (len(KINDS) + 3)
    told = scaled.environment(scaled.service("gateway"))
    assert told["AISLE_GATEWAY_QUERY_ENCODER_TARGET"] == "ipv4:127.0.0.1:50052,127.0.0.1:50152,127.0.0.1:50252"
    assert told["AISLE_GATEWAY_ITEM_ENCODER_TARGET"] == "127.0.0.1:50053"
    second = scaled.environment(scaled.service("reranker-2"))
    assert (second["AISLE_RERANKER_PORT"], second["AISLE_RERANKER_METRICS_PORT"]) == ("50155", "9205")
    assert scaled.log(scaled.service("reranker-2")).name == "reranker-2.log"
    assert [s.name for s in scaled.scaled({"reranker": 1}).replicas("reranker")] == ["reranker"]


def test_who_has_replicas_takes_its_time_to_drain() -> None:
    scaled = spec().scaled({"reranker": 2})
    assert "AISLE_RERANKER_DRAIN_DELAY_S" not in scaled.environment(scaled.service("reranker-2"))
    assert scaled.environment(scaled.service("query_encoder"))["AISLE_QUERY_ENCODER_DRAIN_DELAY_S"] == "0.1"


def test_ports_that_are_known_bring_their_replicas_back() -> None:
    known = ports(spec(51000).scaled({"reranker": 3}))
    # One of them is gone for the moment.
    del known["reranker-2"]
    assert [s.port for s in spec().at_ports(known).replicas("reranker")] == [51004, 50155, 51204]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("query_encoder", "'query_encoder'; it is a list like"),
        ("query_encoder=two", "it is a list like"),
        ("reranker=2,reranker=3", "each service once"),
        ("ranker=2", "no service 'ranker'; REPLICAS knows query_encoder, "),
        ("reranker=0", "reranker=0; from 1 to 16"),
        ("reranker=17", "reranker=17; from 1 to 16"),
        ("vector_retrieval=2", "share a Milvus server: AISLE_VECTOR_RETRIEVAL_URI=http://…"),
        ("user_events=2", "share PostgreSQL: AISLE_USER_EVENTS_URI=postgresql…"),
    ],
)
def test_replicas_that_cannot_be_say_what_to_do(text: str, what: str) -> None:
    with pytest.raises(LocalError, match=re.escape(what)):
        spec().scaled(parse_replicas(text))


def test_what_shares_its_store_may_have_replicas() -> None:
    shared = spec(AISLE_VECTOR_RETRIEVAL_URI="http://milvus:19530", AISLE_USER_EVENTS_URI="postgresql://u@h/db")
    scaled = shared.scaled(parse_replicas(" vector_retrieval=2, user_events=2"))
    second = scaled.environment(scaled.service("user_events-2"))
    assert second["AISLE_USER_EVENTS_URI"] == "postgresql://u@h/db"
    assert parse_replicas("") == {}


def test_prometheus_reads_the_server_that_keeps_the_index() -> None:
    shared = {"AISLE_VECTOR_RETRIEVAL_URI": "https://milvus.shop:19530"}
    assert spec().milvus_metrics is None
    assert spec(**shared).milvus_metrics == "milvus.shop:9091"
    assert spec(**shared, MILVUS_METRICS="metrics:1").milvus_metrics == "metrics:1"
