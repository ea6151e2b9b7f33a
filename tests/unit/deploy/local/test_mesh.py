"""The supervisor keeps in mind what it could not start again."""

import json
from pathlib import Path
from signal import SIGINT

import pytest

from deploy.local import client, scrape, state
from deploy.local.errors import LocalError, ServiceFailedError
from deploy.local.interrupt import Interrupted
from deploy.local.mesh import Mesh
from deploy.local.process import ProcessId
from deploy.local.spec import MeshSpec
from tests.unit.deploy.local.conftest import StandIns, adopted, kill, known


def places(spec: MeshSpec) -> dict[str, tuple[int, int]]:
    return {service.name: (service.port, service.metrics_port) for service in spec.services}


def targets(folder: Path) -> int:
    return len(json.loads(scrape.path(folder).read_text()))


@pytest.mark.parametrize("error", [ServiceFailedError("it does not start"), Interrupted(SIGINT)], ids=repr)
def test_what_fails_to_start_again_keeps_its_ports_and_its_replicas(
    error: BaseException, spec: MeshSpec, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    Mesh(spec).start()
    kill(spec.folder, "reranker", "query_encoder-3")

    def fail(_service: client.Process) -> str:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(client, "health_of", fail)
        with pytest.raises(type(error)):
            adopted(spec).start()
    found = known(spec.folder)
    assert found.ports() == places(spec)
    assert {s.name for s in found.services} - {s.name for s in found.alive()} == {"reranker", "query_encoder-3"}
    assert targets(spec.folder) == len(spec.services)
    with pytest.raises(LocalError, match="query_encoder=3"):
        found.refuse_other({"query_encoder": 2}, None)

    adopted(spec).start()
    assert known(spec.folder).ports() == places(spec)
    assert [s.name for s in known(spec.folder).alive()] == [s.name for s in spec.services]
    assert len(stand_ins) == len(spec.services) + 2 + 2


def test_a_service_whose_stop_was_interrupted_keeps_its_ports(
    spec: MeshSpec, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = Mesh(spec)
    mesh.start()

    def interrupted(_process: ProcessId, _timeout_s: float) -> bool:
        raise Interrupted(SIGINT)

    with monkeypatch.context() as broken:
        broken.setattr(ProcessId, "wait", interrupted)
        with pytest.raises(Interrupted):
            mesh.stop_service("reranker")
    assert not mesh.runs("reranker")
    assert known(spec.folder).ports() == places(spec)


def test_of_a_mesh_that_could_not_start_nothing_is_kept(
    spec: MeshSpec, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "health_of", lambda _service: "NOT_SERVING")
    with pytest.raises(ServiceFailedError, match="does not serve"):
        Mesh(spec).start(timeout_s=0)
    assert len(stand_ins) == len(spec.services)
    assert not state.path(spec.folder).exists()
    assert targets(spec.folder) == 0


def test_a_mesh_that_was_stopped_is_forgotten(spec: MeshSpec, stand_ins: StandIns) -> None:
    with Mesh(spec) as mesh:
        mesh.stop_service("reranker")
    assert all(child.returncode is not None for child in stand_ins)
    assert not state.path(spec.folder).exists()
    assert targets(spec.folder) == 0
