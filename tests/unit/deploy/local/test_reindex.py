"""Another command may start and stop what it likes while the job of a re-index runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.local import catalogue, client, reindex, state
from deploy.local.errors import LocalError
from deploy.local.mesh import Mesh
from deploy.local.spec import MeshSpec
from tests.unit.deploy.local.conftest import StandIns, adopted, kill, known

Run = Callable[[Callable[[], None]], int]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    bundle = tmp_path / "another"
    bundle.mkdir()
    (bundle / "bundle.json").touch()
    return bundle


@pytest.fixture
def run(spec: MeshSpec, model: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Re-indexes a mesh that is up for `model`; what it is given happens while the job runs."""
    Mesh(spec).start()
    usual = {service.address for service in spec.services}

    def facts(_name: str, address: str) -> client.Facts:
        return client.Facts(version="old" if address in usual else "new")

    def reindexed(meanwhile: Callable[[], None]) -> int:
        def job(_spec: MeshSpec, _encoder: str) -> int:
            meanwhile()
            return 0

        monkeypatch.setattr(client, "facts", facts)
        monkeypatch.setattr(reindex, "job", job)
        return reindex.run(model, spec.folder)

    return reindexed


def test_what_was_started_again_meanwhile_is_handed_over_too(
    run: Run, spec: MeshSpec, model: Path, stand_ins: StandIns
) -> None:
    def up() -> None:
        kill(spec.folder, "query_encoder", "gateway")
        adopted(spec).start()

    assert run(up) == 0
    found = known(spec.folder)
    assert {s.process.pid for s in found.services} == {child.pid for child in stand_ins if child.poll() is None}
    assert found.ports() == {service.name: (service.port, service.metrics_port) for service in spec.services}
    assert {s.bundle for s in found.services if s.kind.has_bundle} == {str(model)}


def test_a_mesh_that_was_stopped_meanwhile_stays_down_and_has_its_new_model_noted(
    run: Run, spec: MeshSpec, model: Path, stand_ins: StandIns
) -> None:
    with pytest.raises(LocalError, match=f"stopped meanwhile: `make up`.* starts it with {model}"):
        run(lambda: adopted(spec).stop())
    assert all(child.poll() is not None for child in stand_ins)
    assert state.load(spec.folder) is None
    assert catalogue.bundle_of(spec.index) == model


def test_a_mesh_over_another_index_that_was_started_meanwhile_is_left_alone(
    run: Run, spec: MeshSpec, model: Path
) -> None:
    other = replace(spec, index=spec.folder / "other" / "milvus.db")

    def instead() -> None:
        adopted(spec).stop()
        Mesh(other).start()

    with pytest.raises(LocalError, match="`make down`, then `make up`"):
        run(instead)
    assert {s.bundle for s in known(spec.folder).alive() if s.kind.has_bundle} == {str(spec.bundle)}
    assert len(known(spec.folder).alive()) == len(spec.services)
