"""`python -m deploy.kubernetes.startup`: how long each service takes to answer, and what it occupies then.

Writes `startup.json` beside this file. Startup probes and memory requests are held against it by the tests, so measure
again when a service starts differently. Each service starts alone, some times; the slowest counts.
"""

import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

from deploy.local import client, process
from deploy.local.mesh import START_TIMEOUT_S
from deploy.local.process import ProcessId
from deploy.local.spec import ROOT, MeshSpec, ServiceSpec
from shared.rpc.health import LIVE

FILE = Path(__file__).with_name("startup.json")
_RUNS = 3
_POLL_S = 0.02
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Startup:
    """One service: seconds from exec to the first `SERVING` for `live`, and resident MiB then."""

    seconds: float
    resident_mib: int


def read() -> dict[str, Startup]:
    """What was measured, by service."""
    measured: dict[str, dict[str, float]] = json.loads(FILE.read_text())["services"]
    return {name: Startup(told["seconds"], int(told["resident_mib"])) for name, told in measured.items()}


def main() -> int:
    """Measures every service of the mesh."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        spec = MeshSpec.on_free_ports(index=Path(folder) / "index" / "shop", folder=Path(folder))
        spec.logs.mkdir(parents=True)
        spec.index.parent.mkdir(parents=True)
        for service in spec.services:
            runs = [_start(spec, service) for _ in range(_RUNS)]
            worst = Startup(max(run.seconds for run in runs), max(run.resident_mib for run in runs))
            found[service.name] = {"seconds": round(worst.seconds, 1), "resident_mib": worst.resident_mib}
            sys.stdout.write(f"{service.name:<17} {worst.seconds:5.1f} s  {worst.resident_mib:4d} MiB\n")
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.0f}; slowest of {_RUNS} starts; "
        "all-MiniLM-L6-v2 int8, Milvus Lite"
    )
    FILE.write_text(json.dumps({"machine": machine, "services": found}, indent=2) + "\n")
    return 0


def _start(spec: MeshSpec, service: ServiceSpec) -> Startup:
    command = [sys.executable, "-m", f"services.{service.name}"]
    started = time.monotonic()
    child = process.start(command, cwd=ROOT, env=spec.environment(service), log=spec.log(service))
    try:
        while client.health(service.address, LIVE) != "SERVING":
            if child.poll() is not None or time.monotonic() - started > START_TIMEOUT_S:
                raise SystemExit(f"{service.name} did not start; its log:\n{spec.log(service).read_text()}")
            time.sleep(_POLL_S)
        return Startup(time.monotonic() - started, _resident_mib(child.pid))
    finally:
        if (identity := ProcessId.of(child.pid)) is not None:
            identity.send(SIGTERM)
        child.wait()


def _resident_mib(pid: int) -> int:
    # Pages; the second field of statm is what is resident.
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 // _MIB


if __name__ == "__main__":
    sys.exit(main())
