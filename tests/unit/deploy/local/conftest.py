"""A mesh of stand-ins: what the supervisor does, without a service."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL

import pytest

from deploy.local import client, process, state
from deploy.local.mesh import Mesh
from deploy.local.spec import MeshSpec
from deploy.local.state import State

StandIns = list[subprocess.Popen[bytes]]


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIns]:
    """Every process of a mesh is one that sleeps, and serves at once. Those that were started."""
    start, started = process.start, []

    def sleep(_command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        started.append(start(["sleep", "60"], cwd=cwd, env=env, log=log))
        return started[-1]

    monkeypatch.setattr(process, "start", sleep)
    monkeypatch.setattr(client, "health_of", lambda _service: "SERVING")
    yield started
    for child in started:
        child.kill()
        child.wait()


@pytest.fixture
def spec(tmp_path: Path) -> MeshSpec:
    """Off the usual ports, with three query encoders."""
    bundle = tmp_path / "model"
    bundle.mkdir()
    (bundle / "bundle.json").touch()
    index = tmp_path / "index" / "milvus.db"
    return MeshSpec.on_free_ports(index=index, folder=tmp_path, bundle=bundle, replicas={"query_encoder": 3})


def known(folder: Path) -> State:
    """The mesh of `folder`, of which something runs."""
    found = state.load(folder)
    assert found is not None
    return found


def adopted(spec: MeshSpec) -> Mesh:
    """The mesh of `spec`, as the next command finds it."""
    found = known(spec.folder)
    usual = MeshSpec.default(index=spec.index, folder=spec.folder, bundle=spec.bundle, environ={})
    mesh = Mesh(found.restore(usual))
    mesh.adopt(found)
    return mesh


def kill(folder: Path, *names: str) -> None:
    """Kills processes of the mesh of `folder`, and returns once they are gone."""
    for name in names:
        gone = known(folder).service(name).process
        gone.send(SIGKILL)
        assert gone.wait(10)
