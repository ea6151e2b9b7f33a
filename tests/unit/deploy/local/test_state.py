"""What one command writes about a mesh, another reads."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.local import state
from deploy.local.errors import LocalError
from deploy.local.process import ProcessId
from deploy.local.spec import MeshSpec
from deploy.local.state import Running, State


def me() -> ProcessId:
    known = ProcessId.of(os.getpid())
    assert known is not None
    return known


def running(name: str, process: ProcessId | None = None) -> Running:
    return Running(name, process or me(), 1000, 2000, "/logs/x.log", 1.5)


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = State("/data/milvus.db", [running("reranker"), running("gateway")])
    state.save(tmp_path, written)
    read = state.load(tmp_path)
    assert read == written
    assert read.gateway().address == "127.0.0.1:1000"
    assert read.ports() == {"reranker": (1000, 2000), "gateway": (1000, 2000)}
    state.forget(tmp_path)
    assert state.load(tmp_path) is None


def test_it_notes_which_bundle_a_process_was_told(tmp_path: Path) -> None:
    told = {"AISLE_RERANKER_BUNDLE": "registry:build/registry#live"}
    spec = MeshSpec.default(index=tmp_path / "index", folder=tmp_path, bundle=tmp_path / "model", environ=told)
    bundles = {s.name: state.running(s, spec, me(), 1.5).bundle for s in spec.services}
    assert bundles["reranker"] == "registry:build/registry#live"
    assert bundles["query_encoder"] == str(tmp_path / "model")
    assert bundles["gateway"] == ""


def test_a_file_from_before_bundles_were_noted_is_read(tmp_path: Path) -> None:
    state.save(tmp_path, State("/data/milvus.db", [running("reranker")]))
    written = json.loads(state.path(tmp_path).read_text())
    del written["services"][0]["bundle"]
    state.path(tmp_path).write_text(json.dumps(written))
    read = state.load(tmp_path)
    assert read is not None
    assert read.service("reranker").bundle == ""


def test_replicas_are_processes_of_one_service() -> None:
    known = State("/data/milvus.db", [running("reranker"), running("reranker-2"), running("gateway")])
    assert known.replicas() == {"reranker": 2, "gateway": 1}
    assert known.service("reranker-2").kind.name == "reranker"


def test_a_mesh_of_which_nothing_runs_is_none(tmp_path: Path) -> None:
    gone = replace(me(), born="another time")
    state.save(tmp_path, State("/data/milvus.db", [running("gateway", gone)]))
    assert state.load(tmp_path) is None


def test_a_mesh_without_its_front_door_says_what_to_do() -> None:
    gone = replace(me(), born="another time")
    half = State("/data/milvus.db", [running("reranker"), running("gateway", gone)])
    assert [service.name for service in half.alive()] == ["reranker"]
    with pytest.raises(LocalError, match="make up"):
        half.gateway()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 0}', '{"format": 1, "index": "x", "services": [{}]}'])
def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path, content: str) -> None:
    state.path(tmp_path).write_text(content)
    with pytest.raises(LocalError, match="cannot be read"):
        state.load(tmp_path)


def test_two_commands_do_not_start_and_stop_at_once(tmp_path: Path) -> None:
    with state.locked(tmp_path), pytest.raises(LocalError, match="right now"), state.locked(tmp_path):
        pass
    with state.locked(tmp_path):
        pass
