"""Infinity (infinity-emb) over the same weights, with its torch engine or its ONNX one."""

import asyncio
import shutil
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.local.spec import free_ports
from tests.benchmarks.peers.environment import PEERS, environment
from tests.benchmarks.processes import finished, started, until_ready

START_S = 120.0
# A benchmark tells nobody that it runs, and asks nobody for weights.
_ENV = {"INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}


@asynccontextmanager
async def torch_engine(weights: Path) -> AsyncIterator[str]:
    """Infinity as it comes; gives its target."""
    folder = await environment("infinity", torch=True)
    async with _serving("infinity-torch", folder, weights, "torch", "--no-bettertransformer") as target:
        yield target


@asynccontextmanager
async def onnx_engine(weights: Path, precision: str) -> AsyncIterator[str]:
    """Infinity's `optimum` engine over an export of its own kind: `fp32`, which it optimises itself, or `int8`."""
    folder = await environment("infinity-onnx", torch=True)
    model = PEERS / f"minilm-onnx-{precision}"
    stamp = model / ".exported"
    if not stamp.is_file():
        shutil.rmtree(model, ignore_errors=True)
        script = Path(__file__).with_name("export_onnx.py")
        command = [str(folder / "bin" / "python"), str(script), str(weights), str(model), precision]
        await finished(f"export-{precision}", command, _ENV)
        stamp.touch()
    async with _serving(f"infinity-onnx-{precision}", folder, model, "optimum") as target:
        yield target


@asynccontextmanager
async def _serving(name: str, folder: Path, model: Path, engine: str, *flags: str) -> AsyncIterator[str]:
    (port,) = free_ports(1)
    command = [
        # Its ONNX engine finds the graph of a local model only where the path to it is relative.
        *(str(folder / "bin" / "infinity_emb"), "v2", "--model-id", ".", "--served-model-name", "model"),
        *("--engine", engine, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"),
        *flags,
    ]

    async def ready() -> bool:
        return await asyncio.to_thread(answers, f"http://127.0.0.1:{port}/health")

    env = {**_ENV, "HF_HUB_CACHE": str(folder / "cache" / name)}
    async with started(name, command, env, cwd=model) as process:
        await until_ready(name, process, ready, START_S)
        yield f"infinity://127.0.0.1:{port}"


def answers(url: str) -> bool:
    """Whether GET gives 200."""
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False
