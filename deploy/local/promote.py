"""`promote`: a registry's candidate goes live in the mesh that runs, without a restart and without a failed search.

    judge       the trainer's job says whether the candidate is better, before anything costs time
    re-index    an encoder's new generation, made by a second item encoder with the candidate, verified and promoted:
                from here on queries of the model before are answered by the generation before
    promote     the channel moves, and the services that follow it load the candidate beside what they run, and switch

Stopped at any point and run again, it goes on.
"""

import subprocess
import sys
import time
from pathlib import Path

from deploy.local import catalogue, client, reindex, state, view
from deploy.local.errors import LocalError
from deploy.local.mesh import Mesh
from deploy.local.spec import ROOT, MeshSpec
from shared.bundles import BundleError, BundleKind, Channel, Registry

_SWITCH_TIMEOUT_S = 60.0
"""Looking, loading and warming up take some 15 s with the settings of services."""
_POLL_S = 0.5


def run(location: str, folder: Path, override: str | None) -> int:
    """The exit status of the job that failed, 0 once the services that follow the registry run its candidate. Raises
    `LocalError` when no mesh is up or the registry has no candidate."""
    known = state.load(folder)
    if known is None:
        raise LocalError("no mesh is up: start one with `make up`")
    spec = known.restore(MeshSpec.default(index=Path(known.index), folder=folder))
    job = [sys.executable, "-m", "services.trainer", "promote", "--registry", location]
    if override:
        job += ["--override", override]
    if status := _run([*job, "--check"], spec):
        return status
    registry, version, kind = _candidate(location)
    if kind is BundleKind.BI_ENCODER:
        with Mesh(
            reindex.beside(spec, f"registry:{location}#{Channel.CANDIDATE}"), report=view.console.print, shared=False
        ) as second:
            if status := reindex.job(spec, second.address("item_encoder")):
                return status
        job += ["--index", spec.service("vector_retrieval").address]
    if status := _run(job, spec):
        return status
    if kind is BundleKind.BI_ENCODER:
        catalogue.note_bundle(spec.index, registry.local(version))
    _wait(spec, location, version, kind)
    return 0


def _candidate(location: str) -> tuple[Registry, str, BundleKind]:
    try:
        registry = Registry(location)
        version = registry.channel(Channel.CANDIDATE).version
        if version is None:
            raise LocalError(
                f"registry {location} has no candidate: `python -m services.trainer publish` puts one there"
            )
        return registry, version, registry.manifest(version).kind
    except BundleError as error:
        raise LocalError(error.message) from None


def _run(command: list[str], spec: MeshSpec) -> int:
    return subprocess.run(command, cwd=ROOT, env=spec.job_environment("TRAINER"), check=False).returncode


def _wait(spec: MeshSpec, location: str, version: str, kind: BundleKind) -> None:
    """Until all that follow the registry have switched; those that do not follow it are told at the end."""
    kinds = ("query_encoder", "item_encoder") if kind is BundleKind.BI_ENCODER else ("reranker",)
    asked = [service for each in kinds for service in spec.replicas(each)]
    until = time.monotonic() + _SWITCH_TIMEOUT_S
    waiting = asked
    while waiting and time.monotonic() < until:
        waiting = [s for s in waiting if client.facts(s.kind.name, s.address).version != version]
        time.sleep(_POLL_S if waiting else 0)
    switched = [service.name for service in asked if service not in waiting]
    if switched:
        view.console.print(f"switched to {version}: {', '.join(switched)}")
    if waiting:
        late = ", ".join(service.name for service in waiting)
        prefixes = dict.fromkeys(service.kind.prefix for service in waiting)
        variables = " ".join(f"{prefix}BUNDLE='registry:{location}#live'" for prefix in prefixes)
        raise LocalError(
            f"{late} did not switch within {_SWITCH_TIMEOUT_S:.0f} s. What does not follow the registry "
            f"is started with it: `make down`, then {variables} make up. What does says in its log what is wrong"
        )
