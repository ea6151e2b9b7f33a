"""A service as a process of its own, on free ports."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local.spec import KINDS, ROOT, free_ports

START_S = 45.0
"""Twenty times what a start takes: machines that run tests run other things, too."""


class ServiceProcess:
    """`python -m services.<name>`; `log` collects what it writes, `settings` are its flags."""

    name: str

    def __init__(self, log: Path, **settings: object) -> None:
        self.port, self.metrics_port = free_ports(2)
        self.log = log
        self._primary = next(kind.health for kind in KINDS if kind.name == self.name)
        flags = {
            "port": self.port,
            "metrics-port": self.metrics_port,
            "health-interval-s": 0.2,
            "drain-delay-s": 0,
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    f"services.{self.name}",
                    *(part for name, value in flags.items() for part in (f"--{name}", str(value))),
                ],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'shared' / 'stubs'}"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        # Or a service that starts slowly on a busy machine is not asked again for many seconds.
        backoff = [("grpc.max_reconnect_backoff_ms", 200)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", options=backoff)
        self._health = health_pb2_grpc.HealthStub(self.channel)

    def serving(self) -> bool:
        try:
            answer = self._health.Check(health_pb2.HealthCheckRequest(service=self._primary), timeout=1)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def wait_until(self, serving: bool, timeout_s: float = START_S) -> None:
        deadline = time.monotonic() + timeout_s
        while self.serving() is not serving:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"serving is not {serving}: {self.log.read_text()}"
            time.sleep(0.05)

    def wait_for_log(self, text: str, timeout_s: float = 20) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def end(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=10)


Process = TypeVar("Process", bound=ServiceProcess)


@contextlib.contextmanager
def serving(service: Process) -> Iterator[Process]:
    """`service`, once it serves; ended on the way out."""
    try:
        service.wait_until(serving=True)
        yield service
    finally:
        service.end()
