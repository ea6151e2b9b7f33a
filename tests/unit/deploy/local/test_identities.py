"""Who may call whom where services have certificates."""

from pathlib import Path

import pytest

from deploy.local import client, state
from deploy.local.errors import LocalError
from deploy.local.process import ProcessId
from deploy.local.spec import MeshSpec
from deploy.local.state import Running, State


def spec(folder: Path, mesh: str) -> MeshSpec:
    return MeshSpec.default(index=folder / "index", folder=folder, environ={}).meshed(mesh)


def callers(folder: Path, mesh: str, service: str) -> set[str]:
    meshed = spec(folder, mesh)
    told = meshed.environment(meshed.service(service))[f"AISLE_{service.upper()}_MTLS_CALLERS"]
    return {name.removeprefix("spiffe://aisle.local/") for name in told.split(",")}


def test_services_are_called_by_those_who_use_them(tmp_path: Path) -> None:
    assert callers(tmp_path, "mtls", "reranker") == {"gateway", "operator"}
    assert callers(tmp_path, "mtls", "item_encoder") == {"gateway", "operator", "jobs"}
    assert callers(tmp_path, "mtls", "user_events") == {"gateway", "operator", "jobs"}
    assert callers(tmp_path, "mtls", "gateway") == {"operator"}


def test_behind_a_proxy_they_are_called_by_it(tmp_path: Path) -> None:
    assert callers(tmp_path, "envoy", "reranker") == {"envoy", "operator"}


def test_plain_text_has_no_certificates(tmp_path: Path) -> None:
    plain = spec(tmp_path, "none")
    assert not [name for name in plain.environment(plain.service("gateway")) if "MTLS" in name]
    assert plain.operator is None


def test_everyone_has_the_certificate_that_it_is_told_of(tmp_path: Path) -> None:
    meshed = spec(tmp_path, "envoy")
    assert meshed.identities is not None
    meshed.identities.issue()
    for service in meshed.services:
        told = meshed.environment(service)
        paths = [Path(value) for name, value in told.items() if name.endswith(("_FILE",))]
        assert len(paths) == 3
        assert all(path.is_file() for path in paths)
    assert all(Path(path).is_file() for name, path in meshed.job_environment("REINDEX").items() if "MTLS" in name)


def test_an_unknown_mesh_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="none, mtls, envoy"):
        spec(tmp_path, "istio")


@pytest.mark.parametrize("mesh", ["none", "mtls", "envoy"])
def test_a_mesh_is_found_again_as_it_was_started(tmp_path: Path, mesh: str) -> None:
    started = spec(tmp_path, mesh).at_ports({"gateway": (7001, 7002)})
    me = ProcessId.of(1) or ProcessId(1, "gone")
    running = [state.running(service, started, me, 0.0) for service in started.services]
    known = State(str(started.index), running, started.identities is not None, dict(started.listeners))
    assert known.mesh == mesh
    assert known.restore(spec(tmp_path, "none")) == started
    assert [one.kind for one in running if isinstance(one, Running)] == [s.kind for s in started.services]


def test_a_certificate_that_is_gone_is_named(tmp_path: Path) -> None:
    with client.presenting(spec(tmp_path, "mtls").operator), pytest.raises(LocalError, match="make up"):
        client.health("127.0.0.1:1")
