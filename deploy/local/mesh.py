"""The supervisor: starts every service as a process of its own, waits until it serves, and stops it again.

    with Mesh(MeshSpec.default(index=…)) as mesh:      # started and serving, or an error that says which is not
        …                                              # mesh.address("gateway")
                                                       # stopped, front door first

`stop_all` stops what another command started, from its state file.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGTERM, Signals
from types import TracebackType
from typing import TYPE_CHECKING

from deploy.envoy import process as envoy
from deploy.local import client, interrupt, process, scrape, state
from deploy.local.errors import LocalError, PortInUseError, ServiceFailedError
from deploy.local.kinds import PROXY
from deploy.local.process import ProcessId
from deploy.local.spec import ROOT, MeshSpec, ServiceSpec, is_free
from deploy.local.state import Running, State

if TYPE_CHECKING:
    import subprocess

START_TIMEOUT_S = 90.0
"""Five models load at once on two cores in about ten seconds; the rest is for machines that are busy."""
STOP_GRACE_S = 15.0
"""Longer than the services' own grace for running calls, so that SIGKILL only meets what hangs."""

_POLL_S = 0.15
_LOG_LINES = 15

Report = Callable[[str], None]


def _silent(_line: str) -> None:
    """Reports to nobody."""


class Mesh:
    """The processes of one `spec`. `report` gets a line for people at each step. With `shared`, other commands find
    the mesh by its state file."""

    def __init__(self, spec: MeshSpec, *, report: Report = _silent, shared: bool = True) -> None:
        self.spec = spec
        self._report = report
        self._shared = shared
        self._entries: dict[str, Running] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def adopt(self, known: State) -> None:
        """Takes over a mesh that another command started: what still runs of it, and where the rest ran."""
        self._entries = {service.name: service for service in known.services}

    def __enter__(self) -> "Mesh":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Starts what does not run yet, and returns once everything serves.

        Raises `PortInUseError` before anything is started, or `ServiceFailedError` once all that this call started
        is stopped again.
        """
        missing = [s for s in self.spec.services if not self.runs(s.name)]
        _check_bundle(self.spec)
        check_ports(missing)
        if self.spec.identities is not None:
            self.spec.identities.issue()
        self.spec.logs.mkdir(parents=True, exist_ok=True)
        self.spec.index.parent.mkdir(parents=True, exist_ok=True)
        try:
            for service in missing:
                self.spec.log(service).unlink(missing_ok=True)
                self._spawn(service)
            self._wait([s.name for s in self.spec.services], timeout_s)
        except BaseException:
            self._stop([s.name for s in missing], STOP_GRACE_S)
            raise

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Stops everything, front door first; kills what is still there `grace_s` seconds after being asked."""
        self._stop(list(self._entries), grace_s)

    def start_service(self, name: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Starts one service that does not run, and waits until it serves."""
        check_ports([self.spec.service(name)])
        self._spawn(self.spec.service(name))
        self._wait([name], timeout_s)

    def stop_service(self, name: str, grace_s: float = STOP_GRACE_S) -> None:
        """Stops one service, and leaves the others alone."""
        self._stop([name], grace_s)

    def signal(self, name: str, number: Signals) -> None:
        """Sends `number` to one service."""
        self._entries[name].process.send(number)

    def runs(self, name: str) -> bool:
        """Whether the process of one service is there, serving or not."""
        return name in self._entries and self._entries[name].process.runs()

    def pid(self, name: str) -> int | None:
        """The process of one service; `None` where it has none."""
        return self._entries[name].process.pid if self.runs(name) else None

    def address(self, name: str) -> str:
        """Where one service answers gRPC."""
        return self.spec.service(name).address

    def wait_serving(self, name: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Returns once one service says SERVING. Raises `ServiceFailedError` when it ends first or never does."""
        self._wait([name], timeout_s)

    def log_tail(self, name: str, lines: int = _LOG_LINES) -> str:
        """The last lines of one service's log."""
        return _tail(self.spec.log(self.spec.service(name)), lines)

    def _spawn(self, service: ServiceSpec) -> None:
        command = [sys.executable, "-m", f"services.{service.kind.name}"]
        if service.kind is PROXY:
            command = envoy.command(self.spec)
        environment = self.spec.environment(service)
        # A process that was started and not noted yet would be stopped by nobody.
        with interrupt.deferred():
            child = process.start(command, cwd=ROOT, env=environment, log=self.spec.log(service))
            self._children[service.name] = child
            identity = ProcessId.of(child.pid) or ProcessId(child.pid, "ended before it was seen")
            self._entries[service.name] = state.running(service, self.spec, identity, time.time())
            self._save()

    def _wait(self, names: Sequence[str], timeout_s: float) -> None:
        started = time.monotonic()
        waiting = list(names)
        while waiting:
            interrupt.check()
            for name in tuple(waiting):
                service = self.spec.service(name)
                if not self.runs(name):
                    raise self._failed(name, f"ended while starting ({self._exit_text(name)})")
                if self._health(service) == "SERVING":
                    waiting.remove(name)
                    self._report(f"{name:<18} serving on {service.address} after {time.monotonic() - started:.1f} s")
            if waiting and time.monotonic() - started > timeout_s:
                raise self._failed(waiting[0], f"does not serve after {timeout_s:.0f} s")
            time.sleep(_POLL_S if waiting else 0)

    def _health(self, service: ServiceSpec) -> str:
        with client.presenting(self.spec.operator):
            return client.health_of(service)

    def _failed(self, name: str, what: str) -> ServiceFailedError:
        log = self.spec.log(self.spec.service(name))
        return ServiceFailedError(f"{name} {what}. The end of {log}:\n{self.log_tail(name)}")

    def _exit_text(self, name: str) -> str:
        child = self._children.get(name)
        return "exit code not known" if child is None else process.exit_text(child.wait())

    def _stop(self, names: Sequence[str], grace_s: float) -> None:
        stopping = [self._entries[name] for name in names if name in self._entries]
        try:
            stop_all(stopping, grace_s, self._report)
        finally:
            for entry in stopping:
                # The exit status is collected, or the process would stay behind as a zombie of this one.
                if (child := self._children.pop(entry.name, None)) is not None:
                    child.wait()
            self._save()

    def _save(self) -> None:
        if not self._shared:
            return
        entries, secured = list(self._entries.values()), self.spec.identities is not None
        known = State(str(self.spec.index), entries, secured, dict(self.spec.listeners))
        # What ended is kept while anything runs: what runs calls it at its port, where it must start again.
        if known.alive():
            scrape.write(self.spec.folder, entries, self.spec.milvus_metrics)
            state.save(self.spec.folder, known)
        else:
            scrape.write(self.spec.folder, [])
            state.forget(self.spec.folder)


def stop_all(services: Sequence[Running], grace_s: float = STOP_GRACE_S, report: Report = _silent) -> None:
    """Stops `services`: those that call others before those they call. SIGTERM first, SIGKILL after `grace_s` seconds,
    or at once when a Ctrl-C says that somebody does not want to wait."""
    for together in _stop_order(services):
        alive = [service for service in together if service.process.runs()]
        for service in alive:
            service.process.send(SIGTERM)
            # A process that was paused would never see it.
            service.process.send(SIGCONT)
        until = time.monotonic() + grace_s
        try:
            late = [s for s in alive if not s.process.wait(max(0.0, until - time.monotonic()))]
        except KeyboardInterrupt:
            for service in services:
                service.process.send(SIGKILL)
            raise
        for service in late:
            report(f"{service.name} did not stop within {grace_s:g} s: killed")
            service.process.send(SIGKILL)
            service.process.wait(grace_s)


def _stop_order(services: Sequence[Running]) -> Iterator[list[Running]]:
    remaining = list(services)
    while remaining:
        called = {used for service in remaining for used in service.kind.uses}
        yield [s for s in remaining if s.kind.name not in called]
        remaining = [s for s in remaining if s.kind.name in called]


def _check_bundle(spec: MeshSpec) -> None:
    needy = [s for s in spec.services if s.kind.has_bundle]
    for service in needy:
        # A path only when it looks like one: bundles may also be named by hub id or URL.
        bundle = spec.environment(service)[f"{service.kind.prefix}BUNDLE"]
        if bundle == str(spec.bundle) and not (spec.bundle / "bundle.json").is_file():
            raise LocalError(f"there is no model bundle in {spec.bundle}; make it with `make models`")


def check_ports(services: Sequence[ServiceSpec]) -> None:
    """Raises `PortInUseError`, naming every port that `services` need and cannot have."""
    needed = [
        (port, f"  port {port} ({service.name}, {what}; set {service.kind.prefix}{variable})")
        for service in services
        for port, what, variable in (
            (service.port, "gRPC", "PORT"),
            (service.metrics_port, "metrics", "METRICS_PORT"),
        )
    ]
    ports = [port for port, _ in needed]
    twice = sorted({port for port in ports if ports.count(port) > 1})
    if twice:
        raise PortInUseError(f"port {twice[0]} is given to two uses; every one needs its own", twice)
    taken = [(port, line) for port, line in needed if not is_free(port)]
    if taken:
        lines = ["in use by another process:", *(line for _, line in taken), "choose others for all: PORT_BASE=51000"]
        raise PortInUseError("\n".join(lines), [port for port, _ in taken])


def _tail(log: Path, lines: int) -> str:
    try:
        told = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "  (nothing was written)"
    return "\n".join(f"  {line}" for line in told[-lines:]) or "  (nothing was written)"
