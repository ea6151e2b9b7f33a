"""What the mesh is made of: services, ports, targets, where data and models lie. Starts nothing.

spec = MeshSpec.default(folder=Path("build/mesh"), index=Path("build/mesh/indexes/shop"))
spec.environment(spec.service("gateway"))["AISLE_GATEWAY_RERANKER_TARGET"]      # 127.0.0.1:50055
spec.scaled({"reranker": 2})      # "reranker-2" beside it, and the gateway told of both
"""

import contextlib
import os
import random
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from deploy.local.errors import LocalError
from deploy.local.identities import Identities
from deploy.local.kinds import JOBS, KINDS, OPERATOR, PROXY, Kind
from shared.tls import TlsFiles

ROOT = Path(__file__).resolve().parents[2]
"""The repository: where services are started from."""
DEFAULT_FOLDER = ROOT / "build" / "mesh"
DEFAULT_BUNDLE = ROOT / "build" / "models" / "minilm"
DEFAULT_PORT_BASE = 50051
DEFAULT_METRICS_BASE = 9101
METRICS_OFFSET = 50
"""With a port base of the caller's own, metrics ports lie this far above it."""
REPLICA_OFFSET = 100
"""From the ports of one replica to those of the next: more than a mesh of one each takes from its base."""
LISTENER_OFFSET = 1600
"""From the port of a service's first process to that of the proxy before it: above every replica."""
PROXY_NOTICES_S = "1.5"
"""Seconds that a draining process gives the proxy, which looks twice, half a second apart."""
MILVUS_METRICS_PORT = 9091
"""Of every component of a Milvus, unless its environment has another METRICS_PORT."""
MAX_REPLICAS = 16
"""Of one service on one machine. More is a slip of the finger, and would start that many models."""

_FREE_PORTS = range(20_000, 32_000)
"""Below the range from which the system takes ports for outgoing connections, so that none is lost to one."""


MESHES = {
    "none": "plain text, the gateway balances",
    "mtls": "mTLS between all, the gateway balances",
    "envoy": "mTLS between all, Envoy before every service",
}

_PORT_ORDER = ("gateway", "query_encoder", "item_encoder", "vector_retrieval", "reranker", "user_events")
"""Offsets from the port base."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One process of the mesh. `env` wins over everything else that the mesh would tell it; `replica` counts from 1."""

    kind: Kind
    port: int
    metrics_port: int
    env: Mapping[str, str] = field(default_factory=dict)
    replica: int = 1

    @property
    def name(self) -> str:
        """The service's name (snake case, as the folder in `services`); `reranker-2` for its second replica."""
        return self.kind.name if self.replica == 1 else f"{self.kind.name}-{self.replica}"

    @property
    def address(self) -> str:
        """Where it answers gRPC."""
        return f"127.0.0.1:{self.port}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus reads it."""
        return f"http://127.0.0.1:{self.metrics_port}/metrics"


@dataclass(frozen=True, slots=True)
class MeshSpec:
    """The whole mesh. `folder` holds logs, state and events, `index` the store's file, `bundle` the model's."""

    folder: Path
    index: Path
    services: tuple[ServiceSpec, ...]
    bundle: Path = DEFAULT_BUNDLE
    environ: Mapping[str, str] = field(default_factory=dict)
    """What every service inherits, the caller's own environment as a rule."""
    identities: Identities | None = None
    """Who everyone is; `None` for a mesh in plain text."""
    listeners: Mapping[str, int] = field(default_factory=dict)
    """The proxy's port before each service, by the service's name; empty where callers balance themselves."""

    @classmethod
    def default(
        cls,
        *,
        index: Path,
        folder: Path = DEFAULT_FOLDER,
        bundle: Path = DEFAULT_BUNDLE,
        port_base: int | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> "MeshSpec":
        """The mesh on the usual ports, on those from `port_base` up, or on those that `AISLE_<SERVICE>_PORT` and
        `AISLE_<SERVICE>_METRICS_PORT` in `environ` (default: this process's) name one by one."""
        known = os.environ if environ is None else environ
        base = DEFAULT_PORT_BASE if port_base is None else port_base
        metrics = DEFAULT_METRICS_BASE if port_base is None else port_base + METRICS_OFFSET
        services = []
        for kind in KINDS:
            offset = _PORT_ORDER.index(kind.name)
            services.append(
                ServiceSpec(
                    kind,
                    _port(known, f"{kind.prefix}PORT", base + offset),
                    _port(known, f"{kind.prefix}METRICS_PORT", metrics + offset),
                )
            )
        return cls(folder, index, tuple(services), bundle, dict(known))

    @classmethod
    def on_free_ports(
        cls,
        *,
        index: Path,
        folder: Path,
        bundle: Path = DEFAULT_BUNDLE,
        env: Mapping[str, Mapping[str, str]] | None = None,
        replicas: Mapping[str, int] | None = None,
        mesh: str = "none",
    ) -> "MeshSpec":
        """A mesh beside others: every port one that is free now, and nothing of Aisle taken from the environment.
        `env` holds settings, and `replicas` how many processes there are, by service name; `mesh`: see `MESHES`."""
        told = env or {}
        environ = {name: value for name, value in os.environ.items() if not name.startswith("AISLE_")}
        services = tuple(ServiceSpec(kind, 0, 0, told.get(kind.name, {})) for kind in KINDS)
        spec = cls(folder, index, services, bundle, environ).scaled(replicas or {})
        ports = free_ports(2 * len(spec.services) + len(KINDS) + 1)
        placed = spec.at_ports({service.name: (next(ports), next(ports)) for service in spec.services})
        listeners = {kind.name: next(ports) for kind in KINDS}
        return placed.meshed(mesh, listeners).at_ports({PROXY.name: (listeners["gateway"], next(ports))})

    def scaled(self, replicas: Mapping[str, int]) -> "MeshSpec":
        """The same mesh with `replicas` processes of the services named, each replica's ports `REPLICA_OFFSET` above
        those of the one before. Raises `LocalError` where a service cannot have so many, with what to do about it."""
        for name, count in replicas.items():
            _check_replicas(self, name, count)
        services = (
            replace(
                first,
                replica=number,
                port=first.port + (number - 1) * REPLICA_OFFSET,
                metrics_port=first.metrics_port + (number - 1) * REPLICA_OFFSET,
            )
            for first in self.services
            if first.replica == 1
            for number in range(1, replicas.get(first.name, len(self.replicas(first.name))) + 1)
        )
        return replace(self, services=tuple(services))

    def at_ports(self, ports: Mapping[str, tuple[int, int]]) -> "MeshSpec":
        """The same mesh with its processes at `ports`: gRPC and metrics, by process name. Who is not named stays;
        replicas that only `ports` knows of are added."""
        scaled = self.scaled({kind: count for kind, count in replicas_of(ports).items() if count > 1})
        both = {s.name: ports.get(s.name, (s.port, s.metrics_port)) for s in scaled.services}
        moved = (replace(s, port=both[s.name][0], metrics_port=both[s.name][1]) for s in scaled.services)
        return replace(scaled, services=tuple(moved))

    def meshed(self, mesh: str, listeners: Mapping[str, int] | None = None) -> "MeshSpec":
        """The same mesh with what `MESHES` calls `mesh` between its services; Envoy on the ports `listeners`, or on
        those `LISTENER_OFFSET` above the services' own. Raises `LocalError` for another word."""
        if mesh not in MESHES:
            raise LocalError(f"MESH is {mesh!r}; it is one of {', '.join(MESHES)}")
        if mesh == "none":
            return self
        identities = Identities(self.folder / "certificates", proxied=mesh == "envoy")
        if mesh == "mtls":
            return replace(self, identities=identities)
        ports = dict(listeners or {kind.name: self.service(kind.name).port + LISTENER_OFFSET for kind in KINDS})
        proxy = ServiceSpec(PROXY, ports["gateway"], self.service("gateway").metrics_port + LISTENER_OFFSET)
        return replace(self, services=(proxy, *self.services), identities=identities, listeners=ports)

    def service(self, name: str) -> ServiceSpec:
        """The process called `name`; raises `KeyError` if there is none."""
        return {service.name: service for service in self.services}[name]

    def replicas(self, kind: str) -> list[ServiceSpec]:
        """Every process of the service called `kind`."""
        return [service for service in self.services if service.kind.name == kind]

    def target(self, kind: str) -> str:
        """The gRPC target that names every process of the service called `kind`, for a client to balance over; or the
        proxy before them."""
        if kind in self.listeners:
            return f"127.0.0.1:{self.listeners[kind]}"
        addresses = [service.address for service in self.replicas(kind)]
        return addresses[0] if len(addresses) == 1 else f"ipv4:{','.join(addresses)}"

    def door(self, kind: str) -> str:
        """One address at which people reach the service called `kind`: of the proxy, or of its first process."""
        return self.target(kind) if kind in self.listeners else self.service(kind).address

    @property
    def operator(self) -> TlsFiles | None:
        """Who the local commands are to this mesh; `None` in plain text."""
        return None if self.identities is None else self.identities.files(OPERATOR)

    @property
    def milvus_metrics(self) -> str | None:
        """Where (host:port) the Milvus server that keeps the index tells its metrics: as `MILVUS_METRICS` says, or at
        Milvus' usual port of its host. `None` where the index is in a file."""
        kind = self.service("vector_retrieval").kind
        uri = self.told(kind, f"{kind.prefix}URI")
        if not uri.startswith(kind.store):
            return None
        return self.environ.get("MILVUS_METRICS") or f"{urlsplit(uri).hostname}:{MILVUS_METRICS_PORT}"

    @property
    def logs(self) -> Path:
        """The folder with one log file a process."""
        return self.folder / "logs"

    def log(self, service: ServiceSpec) -> Path:
        """The log file of `service`."""
        return self.logs / f"{service.name}.log"

    def told(self, kind: Kind, variable: str) -> str:
        """What the caller says of a setting of `kind`; empty where nothing."""
        first = self.service(kind.name)
        return first.env.get(variable, self.environ.get(variable, ""))

    def environment(self, service: ServiceSpec) -> dict[str, str]:
        """Everything `service` is told. Its own ports and the store's file are the mesh's to say; the rest of what
        the caller's environment says (targets elsewhere, another bundle, log levels) wins over the defaults here."""
        prefix = service.kind.prefix
        defaults = {f"{prefix}{used.upper()}_TARGET": self.target(used) for used in service.kind.uses}
        if service.kind.has_bundle:
            defaults[f"{prefix}BUNDLE"] = str(self.bundle)
        if self.listeners:
            defaults[f"{prefix}DRAIN_DELAY_S"] = PROXY_NOTICES_S
        elif len(self.replicas(service.kind.name)) == 1:
            # Nobody balances over one process, so nobody needs time to notice.
            defaults[f"{prefix}DRAIN_DELAY_S"] = "0.1"
        if self.listeners and service.kind.uses:
            defaults[f"{prefix}CLIENT_BALANCING"] = "false"
        owned = {f"{prefix}PORT": str(service.port), f"{prefix}METRICS_PORT": str(service.metrics_port)}
        homes = {"vector_retrieval": self.index, "user_events": self.folder / "events.db"}
        if service.kind.name in homes and f"{prefix}URI" not in self.environ:
            owned[f"{prefix}URI"] = str(homes[service.kind.name])
        identity = {} if self.identities is None else self.identities.settings(service.kind)
        return {**defaults, **self.environ, **owned, **identity, **service.env}

    def job_environment(self, job: str) -> dict[str, str]:
        """What the job with the settings `AISLE_<job>_…` is told."""
        told = {} if self.identities is None else self.identities.certificate(f"AISLE_{job}_", JOBS)
        return {**self.environ, **told}


def kind_name(name: str) -> str:
    """The service that the process called `name` is a replica of."""
    return name.partition("-")[0]


def replicas_of(names: Iterable[str]) -> dict[str, int]:
    """How many replicas each service has, by its name, where processes are called `names`."""
    # The highest number: one between may be gone for the moment.
    counts: dict[str, int] = {}
    for name in names:
        kind, _, number = name.partition("-")
        counts[kind] = max(counts.get(kind, 1), int(number or 1))
    return counts


def parse_replicas(text: str) -> dict[str, int]:
    """`query_encoder=3,reranker=2` as numbers by service name. Raises `LocalError` where it is not of that form."""
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, count = part.partition("=")
        if not count.isdigit() or name in found:
            raise LocalError(f"REPLICAS has {part!r}; it is a list like query_encoder=3,reranker=2, each service once")
        found[name] = int(count)
    return found


def _check_replicas(spec: MeshSpec, name: str, count: int) -> None:
    kind = next((kind for kind in KINDS if kind.name == name), None)
    if kind is None:
        raise LocalError(f"there is no service {name!r}; REPLICAS knows {', '.join(kind.name for kind in KINDS)}")
    if not 1 <= count <= MAX_REPLICAS:
        raise LocalError(f"REPLICAS has {name}={count}; from 1 to {MAX_REPLICAS} processes fit")
    variable = f"{kind.prefix}URI"
    if count > 1 and kind.store and not spec.told(kind, variable).startswith(kind.store):
        raise LocalError(
            f"{name} keeps its data in a file that one process can hold; for {count} of them let them share "
            f"{kind.store_name}: {variable}={kind.store[0]}…"
        )


def free_ports(count: int) -> Iterator[int]:
    """`count` different ports that nothing listens on now."""
    candidates = random.sample(_FREE_PORTS, len(_FREE_PORTS))
    found = [port for port, _ in zip(filter(is_free, candidates), range(count), strict=False)]
    if len(found) < count:
        raise LocalError(f"no {count} free ports between {_FREE_PORTS.start} and {_FREE_PORTS.stop}")
    return iter(found)


def is_free(port: int) -> bool:
    """Whether this process could listen on `port` of the loopback address now."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        # As servers do: a connection that ended a moment ago does not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _port(environ: Mapping[str, str], variable: str, default: int) -> int:
    given = environ.get(variable)
    if given is None:
        return default
    if not given.isdigit() or not 0 < int(given) < 65_536:
        raise LocalError(f"{variable} is {given!r}; a port is a number from 1 to 65535")
    return int(given)
