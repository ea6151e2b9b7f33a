"""A real Milvus standalone server for tests: started on free ports, ended by its own process group."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from pymilvus import MilvusClient, MilvusException

from services.vector_retrieval.milvus import silence_libraries

ROOT = Path(__file__).parents[3]
VENV = ROOT / "build" / "peers" / "milvus"
START_TIMEOUT_S = 45
_QUICK = {
    "PROXY_TIMETICKINTERVAL": "50",
    "QUERYCOORD_CHECKCHANNELINTERVAL": "50",
    "QUERYCOORD_CHECKSEGMENTINTERVAL": "50",
    "QUERYCOORD_DISTPULLINTERVAL": "50",
}
"""Milliseconds. By its own settings a strong read waits 0.2 s and an empty collection loads in 3 s, of which tests have
hundreds: by these 0.05 and 2."""


def installed() -> bool:
    """Whether the server's environment has been made."""
    return (VENV / "bin" / "milvus-server").exists()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MilvusServer:
    """One server over one data directory; can be killed and started again. `flags` are its own; `client` is what else
    a client must say; `quick` makes it wait less than by its own settings."""

    def __init__(
        self,
        data: Path,
        *,
        flags: Sequence[str] = (),
        scheme: str = "http",
        client: Mapping[str, Any] | None = None,
        quick: bool = True,
    ) -> None:
        self.data = data
        self.port, self.metrics_port = free_port(), free_port()
        self.uri = f"{scheme}://127.0.0.1:{self.port}"
        self._flags = flags
        self._client = client or {}
        self._settings = _QUICK if quick else {}
        self._process: subprocess.Popen[bytes] | None = None
        data.mkdir(parents=True, exist_ok=True)
        # The wheel unpacks 250 MB of binaries into each data directory; all of them share one copy here.
        shared = VENV / "unpacked"
        shared.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (data / "bin").symlink_to(shared)

    def start(self) -> None:
        silence_libraries()
        self._process = subprocess.Popen(
            [ROOT / "deploy" / "local" / "milvus_server.sh", "run", self.data, str(self.port), *self._flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **self._settings, "MILVUS_VENV": str(VENV), "METRICS_PORT": str(self.metrics_port)},
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None, f"milvus-server ended; see {self.data}/logs"
            assert time.monotonic() < deadline, f"milvus-server is not ready; see {self.data}/logs"
            time.sleep(0.2)

    @property
    def leader(self) -> int | None:
        """The process group that it runs in."""
        return self._process.pid if self._process is not None else None

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, how)
            self._process.wait(timeout=20)
            self._process = None

    def _answers(self) -> bool:
        try:
            client = MilvusClient(self.uri, timeout=2, **self._client)
            client.list_collections(timeout=2)
            client.close()
        except (MilvusException, grpc.RpcError):
            return False
        return True
