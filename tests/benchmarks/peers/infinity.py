"""Infinity (infinity-emb), installed into an environment of its own and serving the same weights."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.spec import free_ports
from tests.benchmarks.figures import OUT, ROOT

VENV = ROOT / "build" / "peers" / "infinity"
REQUIREMENTS = Path(__file__).with_name("infinity.txt")
START_S = 120.0
_QUIET = {"INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1"}
"""A benchmark tells nobody that it runs."""


class PeerError(Exception):
    """The peer cannot be measured; the message says why."""


def install() -> None:
    """Makes the environment, once."""
    if (VENV / "bin" / "infinity_emb").is_file():
        return
    torch = next(line.strip() for line in (ROOT / "versions.txt").open() if line.startswith("torch=="))
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True, capture_output=True, text=True)
        subprocess.run([*pip, torch], check=True, capture_output=True, text=True)
        subprocess.run([*pip, torch, "-r", str(REQUIREMENTS)], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or ["no message"]
        raise PeerError(f"Infinity could not be installed: {lines[-1]}") from error


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """Infinity with its torch engine over `model`; gives its URL."""
    install()
    (port,) = free_ports(1)
    log = OUT / "logs" / "infinity.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(str(VENV / "bin" / "infinity_emb"), "v2", "--model-id", str(model), "--engine", "torch", "--device", "cpu"),
        *("--host", "127.0.0.1", "--port", str(port), "--no-bettertransformer", "--log-level", "error"),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "HF_HUB_OFFLINE": "1", **_QUIET})
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > until:
                last = (log.read_text(errors="replace").strip().splitlines() or ["nothing was logged"])[-1]
                raise PeerError(f"Infinity did not start: {last}") from None
            time.sleep(0.2)
