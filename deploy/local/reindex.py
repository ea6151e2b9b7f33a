"""`reindex`: another model for the mesh that runs, while it is searched.

    encode      an item encoder of the new model beside the one in use, stopped again at the end
    re-index    the job of vector_retrieval: a new generation, verified and promoted
    hand over   the services that run the old model start again with the new one

Stopped at any point and run again, it goes on: what is done is seen in the index and in what services say they run.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from deploy.local import catalogue, client, interrupt, state, view
from deploy.local.errors import LocalError
from deploy.local.mesh import STOP_GRACE_S, Mesh
from deploy.local.spec import ROOT, MeshSpec, ServiceSpec, free_ports
from deploy.local.state import State

_ENCODERS = ("query_encoder", "item_encoder")


def run(bundle: Path, folder: Path) -> int:
    """The exit status of the job, 0 once the mesh of `folder` runs `bundle`. Raises `LocalError` when nothing is up,
    before or after the job, or what should start does not."""
    known = state.load(folder)
    if known is None:
        raise LocalError("no mesh is up: start one with `make up`")
    if not (bundle / "bundle.json").is_file():
        raise LocalError(f"there is no model bundle in {bundle}; `python -m services.trainer export` makes one")
    spec = _restored(known, folder)
    with Mesh(beside(spec, str(bundle)), report=view.console.print, shared=False) as second:
        encoder = second.address("item_encoder")
        if status := job(spec, encoder):
            return status
        version = client.facts("item_encoder", encoder).version
    catalogue.note_bundle(spec.index, bundle)
    _hand_over(spec, bundle, version)
    return 0


def _restored(known: State, folder: Path) -> MeshSpec:
    return known.restore(MeshSpec.default(index=Path(known.index), folder=folder))


def beside(spec: MeshSpec, bundle: str) -> MeshSpec:
    """A second item encoder alone, with another bundle, on ports of its own."""
    ports = free_ports(2)
    told = _told(spec.service("item_encoder"), bundle)
    service = replace(spec.service("item_encoder"), port=next(ports), metrics_port=next(ports), env=told)
    return replace(spec, folder=spec.folder / "reindex", services=(service,))


def _told(service: ServiceSpec, bundle: str) -> Mapping[str, str]:
    return {**service.env, f"{service.kind.prefix}BUNDLE": bundle}


def job(spec: MeshSpec, encoder: str) -> int:
    """Re-indexes with the model of `encoder` (host:port), in the foreground: its progress is its own to show. The exit
    status."""
    retrieval = spec.service("vector_retrieval").address
    command = [sys.executable, "-m", "services.vector_retrieval.reindex"]
    child: subprocess.Popen[bytes] | None = None
    try:
        with interrupt.deferred():
            # In a session of its own: of a Ctrl-C at the terminal it hears once, from here.
            child = subprocess.Popen(
                [*command, "--retrieval", retrieval, "--encoder", encoder],
                cwd=ROOT,
                env=spec.job_environment("REINDEX"),
                start_new_session=True,
            )
        return child.wait()
    except BaseException:
        if child is not None:
            _stop(child)
        raise


def _stop(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _outdated(spec: MeshSpec, version: str) -> list[str]:
    """The processes that want the new model: the encoders, and the re-ranker where it runs the model they had."""
    # The re-ranker first: whether it follows is told by the encoders' model, should this be cut short.
    asked = [service for kind in ("reranker", *_ENCODERS) for service in spec.replicas(kind)]
    runs = [(s.name, s.kind.name, client.facts(s.kind.name, s.address).version) for s in asked]
    old = {has for _, kind, has in runs if kind in _ENCODERS} - {version, ""}
    return [name for name, kind, has in runs if has != version and (kind in _ENCODERS or has in old)]


def _with(spec: MeshSpec, bundle: Path, names: list[str]) -> MeshSpec:
    services = (replace(s, env=_told(s, str(bundle))) if s.name in names else s for s in spec.services)
    return replace(spec, services=tuple(services), bundle=bundle)


def _hand_over(before: MeshSpec, bundle: Path, version: str) -> None:
    say = view.console.print
    with state.locked(before.folder):
        # The job took minutes, in which another command may have started or stopped what it likes.
        known = state.load(before.folder)
        if known is None or known.index != str(before.index):
            first = "" if known is None else "`make down`, then "
            raise LocalError(
                f"the index is re-indexed, but its mesh was stopped meanwhile: {first}`make up`, with the CATALOG and "
                f"MAPPING it had, starts it with {bundle}"
            )
        spec = _restored(known, before.folder)
        outdated = _outdated(spec, version)
        mesh = Mesh(_with(spec, bundle, outdated), report=say)
        mesh.adopt(known)
        for name in outdated:
            if mesh.runs(name):
                mesh.stop_service(name)
                mesh.start_service(name)
        mesh.start()
    say(f"the mesh runs {bundle}: {', '.join(outdated) or 'nothing'} had to start again", soft_wrap=True)
