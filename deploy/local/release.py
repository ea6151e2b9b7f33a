"""What bringing another of a registry's bundles into the mesh that runs takes, onward (`promote`) or back (`rollback`).

re-index    an encoder's generation, by a second item encoder with the bundle, verified and promoted: from here on
            queries of the model before are answered by the generation before
move        the channel, by a job of the trainer
wait        the services that follow it load the bundle beside what they run, and switch
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.local import catalogue, client, reindex, state, view
from deploy.local.errors import LocalError
from deploy.local.mesh import Mesh
from deploy.local.spec import ROOT, MeshSpec, ServiceSpec
from deploy.local.state import State
from shared.bundles import BundleKind, Channel, ChannelName, Registry

_SWITCH_TIMEOUT_S = 60.0
"""Looking, loading and warming up take some 15 s with the settings of services."""
_POLL_S = 0.5


def running(folder: Path) -> tuple[State, MeshSpec]:
    """The mesh that is up. Raises `LocalError` when none is."""
    known = state.load(folder)
    if known is None:
        raise LocalError("no mesh is up: start one with `make up`")
    return known, known.restore(MeshSpec.default(index=Path(known.index), folder=folder))


def trainer(spec: MeshSpec, job: str, location: str, *arguments: str) -> int:
    """The exit status of a job of the trainer for the registry at `location`."""
    command = [sys.executable, "-m", "services.trainer", job, "--registry", location, *arguments]
    return subprocess.run(command, cwd=ROOT, env=spec.job_environment("TRAINER"), check=False).returncode


def bring(
    known: State, spec: MeshSpec, registry: Registry, version: str, job: str, arguments: Sequence[str] = ()
) -> int:
    """The exit status of what failed, 0 once the services that follow `registry` run its bundle `version`, to which the
    trainer's `job` moves the live channel. Raises `LocalError` naming those that do not switch in time, and
    `BundleError`."""
    location = registry.location
    if registry.manifest(version).kind is not BundleKind.BI_ENCODER:
        if status := trainer(spec, job, location, *arguments):
            return status
        _wait(spec.replicas("reranker"), location, version)
        return 0
    bundle = registry.local(version)
    with Mesh(reindex.beside(spec, str(bundle)), report=view.console.print, shared=False) as second:
        if status := reindex.job(spec, second.address("item_encoder")):
            return status
    index = spec.service("vector_retrieval").address
    if status := trainer(spec, job, location, *arguments, "--index", index):
        return status
    catalogue.note_bundle(spec.index, bundle)
    following, others = _rerankers(known, spec, location)
    encoders = [service for each in ("query_encoder", "item_encoder") for service in spec.replicas(each)]
    _wait([*encoders, *following], location, version)
    _tell_stayed(others, location, version)
    return 0


def _rerankers(known: State, spec: MeshSpec, location: str) -> tuple[list[ServiceSpec], list[ServiceSpec]]:
    """Those that were started to follow the live channel of the registry at `location`, and the others."""
    follow = {service.name for service in known.services if follows(service.bundle, location)}
    rerankers = spec.replicas("reranker")
    return [s for s in rerankers if s.name in follow], [s for s in rerankers if s.name not in follow]


def follows(bundle: str, location: str) -> bool:
    """Whether a service told `bundle` follows the live channel of the registry at `location` (absolute, or a URL).
    Raises `BundleError` where `bundle` names a channel that is none."""
    followed = ChannelName.parse(bundle)
    if followed is None or followed.channel is not Channel.LIVE:
        return False
    # Services are started in ROOT.
    return followed.location == location or (ROOT / followed.location).resolve() == Path(location)


def _wait(asked: list[ServiceSpec], location: str, version: str) -> None:
    """Until all of `asked` have switched. Raises `LocalError` naming those that have not in `_SWITCH_TIMEOUT_S`."""
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


def _tell_stayed(rerankers: list[ServiceSpec], location: str, version: str) -> None:
    for service in rerankers:
        facts = client.facts(service.kind.name, service.address)
        if facts.kind == "late-interaction" and facts.version != version:
            view.console.print(
                f"{service.name} does not follow the registry: it orders what {version} finds by {facts.version}, and "
                f"reads each query once more. To have it follow too: `make down`, then `make up` with "
                f"{service.kind.prefix}BUNDLE='registry:{location}#live' beside what the encoders are told",
                style="yellow",
                markup=False,
                soft_wrap=True,
            )
