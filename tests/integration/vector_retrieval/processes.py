"""The service as a process of its own, on free ports."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from aisle.retrieval.v1 import vector_retrieval_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration.vector_retrieval.servers import ROOT, free_port

SERVICE = "aisle.retrieval.v1.VectorRetrieval"


class ServiceProcess:
    """`python -m services.vector_retrieval` over `uri`; `log` collects what it writes."""

    def __init__(self, uri: str, log: Path, **settings: str) -> None:
        self.port = free_port()
        self.log = log
        flags = {
            "uri": uri,
            "port": self.port,
            "metrics-port": free_port(),
            "health-interval-s": 0.2,
            "drain-delay-s": 0,
            **settings,
        }
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "services.vector_retrieval",
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
        self.stub = vector_retrieval_pb2_grpc.VectorRetrievalStub(self.channel)
        self._health = health_pb2_grpc.HealthStub(self.channel)

    def serving(self) -> bool:
        try:
            answer = self._health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=1)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def wait_until(self, serving: bool, timeout_s: float = 60) -> None:
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


@contextlib.contextmanager
def running(uri: str, log: Path, **settings: str) -> Iterator[ServiceProcess]:
    service = ServiceProcess(uri, log, **settings)
    try:
        service.wait_until(serving=True)
        yield service
    finally:
        service.end()
