"""Envoy's configuration, as far as it can be wrong and still be valid. What it does: tests/mesh/test_envoy.py."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from deploy.envoy import config
from deploy.envoy.contracts import descriptor_set, services
from deploy.envoy.routes import routes
from deploy.local.errors import LocalError
from deploy.local.kinds import KINDS
from deploy.local.spec import MeshSpec
from services.vector_retrieval import clients

NAMES = [kind.name for kind in KINDS]


@pytest.fixture
def spec(tmp_path: Path) -> MeshSpec:
    plain = MeshSpec.default(index=tmp_path / "index", folder=tmp_path, environ={})
    return plain.scaled({"query_encoder": 3}).meshed("envoy")


@pytest.fixture
def resources(spec: MeshSpec) -> Any:
    return config.bootstrap(spec, spec.folder)["static_resources"]


def actions(kind: str) -> dict[str, dict[str, Any]]:
    return {route["match"]["path"].rpartition("/")[2]: route["route"] for route in routes(kind)[:-2]}


@pytest.mark.parametrize("kind", NAMES)
def test_every_method_has_its_route(kind: str) -> None:
    paths = {route["match"].get("path") for route in routes(kind)}
    assert paths >= {f"/{service.full_name}/{method.name}" for service in services(kind) for method in service.methods}


@pytest.mark.parametrize("kind", NAMES)
def test_health_is_that_of_the_services_which_the_mesh_knows(kind: str) -> None:
    known = {kind.name: kind.health for kind in KINDS}
    assert known[kind] in {service.full_name for service in services(kind)}


def test_streams_are_neither_cut_off_nor_tried_again() -> None:
    streams = [actions("gateway")["ImportItems"], actions("user_events")["StreamEvents"]]
    assert all(action == {"cluster": action["cluster"], "timeout": "0s"} for action in streams)


def test_a_write_that_may_have_run_is_not_run_again() -> None:
    writes = [
        *(actions("vector_retrieval")[name] for name in ("UpsertItems", "DeleteItems", "PromoteGeneration")),
        *(actions("user_events")[name] for name in ("WriteEvents", "ForgetUser")),
        actions("gateway")["UpsertItems"],
    ]
    for write in writes:
        assert "reset" not in write["retry_policy"]["retry_on"].split(",")
    assert "reset" in actions("query_encoder")["EncodeQueries"]["retry_policy"]["retry_on"].split(",")


def test_what_is_unavailable_is_tried_again_in_one_place() -> None:
    assert "unavailable" in actions("reranker")["Rerank"]["retry_policy"]["retry_on"]
    assert "unavailable" not in actions("gateway")["Search"]["retry_policy"]["retry_on"]


@pytest.mark.parametrize(
    ("kind", "method", "longest_s"),
    [
        ("vector_retrieval", "CreateGeneration", clients._BATCH_S),
        ("vector_retrieval", "ListItems", clients._BATCH_S),
        ("vector_retrieval", "UpsertItems", clients._BATCH_S),
        ("vector_retrieval", "VerifyGeneration", clients._LOOK_S),
        ("vector_retrieval", "PromoteGeneration", clients._LOOK_S),
        ("vector_retrieval", "RollbackGeneration", clients._LOOK_S),
        ("item_encoder", "EncodeItems", clients._BATCH_S),
    ],
)
def test_a_reindex_is_given_the_time_it_asks_for(kind: str, method: str, longest_s: float) -> None:
    assert float(actions(kind)[method]["timeout"][:-1]) >= longest_s


def test_a_try_is_shorter_than_the_call() -> None:
    for kind in NAMES:
        for action in actions(kind).values():
            if one := action.get("retry_policy", {}).get("per_try_timeout"):
                assert float(one[:-1]) < float(action["timeout"][:-1])


def test_clusters_are_the_replicas(spec: MeshSpec, resources: Any) -> None:
    (encoder,) = (cluster for cluster in resources["clusters"] if cluster["name"] == "query_encoder")
    (endpoints,) = encoder["load_assignment"]["endpoints"]
    ports = [one["endpoint"]["address"]["socket_address"]["port_value"] for one in endpoints["lb_endpoints"]]
    assert ports == [service.port for service in spec.replicas("query_encoder")]
    assert len(ports) == 3


def test_listeners_are_where_the_gateway_looks_for_services(spec: MeshSpec, resources: Any) -> None:
    told = spec.environment(spec.service("gateway"))
    for listener in resources["listeners"]:
        port = listener["address"]["socket_address"]["port_value"]
        if listener["name"] != "gateway":
            assert told[f"AISLE_GATEWAY_{listener['name'].upper()}_TARGET"] == f"127.0.0.1:{port}"
    assert told["AISLE_GATEWAY_CLIENT_BALANCING"] == "false", "two that balance would multiply retries"


def test_nothing_is_reached_from_another_machine(resources: Any) -> None:
    addresses = [listener["address"]["socket_address"]["address"] for listener in resources["listeners"]]
    assert set(addresses) == {"127.0.0.1"}


def test_the_contracts_are_complete() -> None:
    told = FileDescriptorSet.FromString(descriptor_set("gateway"))
    names = [file.name for file in told.file]
    assert len(names) == len(set(names))
    for at, file in enumerate(told.file):
        assert set(file.dependency) <= set(names[:at]), "what is imported comes first"


def test_it_stands_in_no_mesh_in_plain_text(tmp_path: Path) -> None:
    plain = MeshSpec.default(index=tmp_path / "index", folder=tmp_path, environ={})
    with pytest.raises(LocalError, match="MESH=envoy"):
        config.write(plain)
