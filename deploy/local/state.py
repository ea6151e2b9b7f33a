"""What is known about the mesh that runs: one JSON file, so that another command finds it, asks it and stops it."""

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deploy.local import files
from deploy.local.errors import LocalError
from deploy.local.kinds import KINDS, PROXY, Kind
from deploy.local.process import ProcessId
from deploy.local.spec import MeshSpec, ServiceSpec, kind_name, replicas_of
from shared.tls import TlsFiles

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Running:
    """One process of a mesh that was started."""

    name: str
    process: ProcessId
    port: int
    metrics_port: int
    log: str
    started_at: float
    """Seconds since 1970."""
    bundle: str = ""
    """As it was told at its start; empty where it runs no model."""

    @property
    def address(self) -> str:
        """Where it answers gRPC."""
        return f"127.0.0.1:{self.port}"

    @property
    def kind(self) -> Kind:
        """What it is."""
        return next(kind for kind in (*KINDS, PROXY) if kind.name == kind_name(self.name))


@dataclass(frozen=True, slots=True)
class State:
    """A mesh that was started. `index` is the file of its store."""

    index: str
    services: list[Running] = field(default_factory=list)
    secured: bool = False
    listeners: dict[str, int] = field(default_factory=dict)
    """The proxy's ports, by service name; empty without one."""

    @property
    def mesh(self) -> str:
        """What stands between its services, one of `MESHES`."""
        if self.listeners:
            return "envoy"
        return "mtls" if self.secured else "none"

    def refuse_other(self, replicas: Mapping[str, int], mesh: str | None) -> None:
        """Raises `LocalError` where it was started with other `replicas` than these, or with another `mesh`: services
        are told at their start whom they call, and who they are."""
        have = self.replicas()
        other = [f"{name}={have.get(name, 1)}" for name, count in replicas.items() if have.get(name, 1) != count]
        if other:
            raise LocalError(
                f"the mesh is up with {', '.join(other)}; `make down` first, then start it with other REPLICAS"
            )
        if mesh and mesh != self.mesh:
            raise LocalError(f"the mesh is up with MESH={self.mesh}; `make down` first, then start it with another")

    def restore(self, spec: MeshSpec) -> MeshSpec:
        """`spec` as this mesh was started: its ports, its replicas, and what stands between."""
        return spec.meshed(self.mesh, self.listeners).at_ports(self.ports())

    def alive(self) -> list[Running]:
        """The processes that still run, in the order of starting."""
        return [service for service in self.services if service.process.runs()]

    def ports(self) -> dict[str, tuple[int, int]]:
        """Where each process was started: gRPC and metrics, by its name."""
        return {service.name: (service.port, service.metrics_port) for service in self.services}

    def replicas(self) -> dict[str, int]:
        """How many processes each service was started with."""
        return replicas_of(service.name for service in self.services)

    def service(self, name: str) -> Running:
        """The process called `name`. Raises `LocalError` when it does not run."""
        found = next((s for s in self.alive() if s.name == name), None)
        if found is None:
            raise LocalError(f"{name} does not run; `make status` says what does, `make up` starts what is missing")
        return found

    def gateway(self) -> Running:
        """The front door. Raises `LocalError` when it does not run."""
        return self.service("gateway")


def running(service: ServiceSpec, spec: MeshSpec, process: ProcessId, started_at: float) -> Running:
    """The entry of `service`, started as `process`."""
    log = str(spec.log(service))
    bundle = spec.environment(service)[f"{service.kind.prefix}BUNDLE"] if service.kind.has_bundle else ""
    return Running(service.name, process, service.port, service.metrics_port, log, started_at, bundle)


def operator(folder: Path) -> TlsFiles | None:
    """Who a command is to the mesh of `folder`; `None` where that speaks plain text, or nothing runs."""
    known = load(folder)
    return None if known is None else known.restore(MeshSpec.default(index=Path(known.index), folder=folder)).operator


def path(folder: Path) -> Path:
    """The state file of the mesh that keeps its logs in `folder`."""
    return folder / "state.json"


def load(folder: Path) -> State | None:
    """The mesh of `folder`, if at least one of its processes still runs."""
    try:
        state = _read(path(folder).read_text())
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise LocalError(
            f"{path(folder)} cannot be read. If no service of Aisle runs (`ps -ef | grep services.`), remove it"
        ) from None
    return state if state.alive() else None


def _read(text: str) -> State:
    told = json.loads(text)
    if told.pop("format") != _FORMAT:
        raise ValueError("another format")
    entries = [Running(**{**entry, "process": ProcessId(**entry["process"])}) for entry in told["services"]]
    return State(told["index"], entries, told.get("secured", False), told.get("listeners", {}))


def save(folder: Path, state: State) -> None:
    """Replaces the state file; a reader sees the old one or the new one, never half of one."""
    files.write(path(folder), json.dumps({"format": _FORMAT, **asdict(state)}, indent=2) + "\n")


def forget(folder: Path) -> None:
    """Removes the state file."""
    path(folder).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps two commands from starting or stopping the mesh of `folder` at once. Raises `LocalError` when another
    one is at it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalError("another command is starting or stopping the mesh right now; try again shortly") from None
        yield
