"""Service processes on free ports, with logs, ended by their own id."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.local import client
from deploy.local.spec import KINDS, free_ports
from tests.benchmarks.figures import OUT, ROOT

START_S = 60.0


@contextmanager
def service(name: str, *flags: str) -> Iterator[str]:
    """`services.<name>`, serving; gives its address."""
    port, metrics = free_ports(2)
    logs = OUT / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    kind = next(kind for kind in KINDS if kind.name == name)
    command = [sys.executable, "-m", f"services.{name}", "--port", str(port), "--metrics-port", str(metrics), *flags]
    with (logs / f"{name}.log").open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
    try:
        until = time.monotonic() + START_S
        while client.health(f"127.0.0.1:{port}", kind.health) != "SERVING":
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{name} did not start: see {logs / name}.log")
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
