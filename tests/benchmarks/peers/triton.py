"""Triton, started by pytriton, with its dynamic batcher over the graph and the tokenizer that Aisle serves."""

import asyncio
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.local.spec import free_ports
from shared.bundles import Bundle, Precision
from shared.inference import inference_threads
from tests.benchmarks.peers.environment import PEERS, environment
from tests.benchmarks.peers.infinity import answers
from tests.benchmarks.processes import started, until_ready
from tests.benchmarks.wire import TRITON_MODEL

START_S = 120.0


@asynccontextmanager
async def triton(bundle: Bundle) -> AsyncIterator[str]:
    """Gives its target."""
    folder = await environment("triton", torch=False)
    http, grpc, metrics = free_ports(3)
    command = [
        *(str(folder / "bin" / "python"), str(Path(__file__).with_name("triton_server.py")), TRITON_MODEL),
        *(str(bundle.onnx_path(Precision.INT8)), str(bundle.tokenizer_path), str(bundle.manifest.max_query_tokens)),
        *(str(inference_threads(None)), str(http), str(grpc), str(metrics)),
    ]

    async def ready() -> bool:
        return await asyncio.to_thread(answers, f"http://127.0.0.1:{http}/v2/models/{TRITON_MODEL}/ready")

    # It unpacks a server of several hundred megabytes for itself at every start.
    env = {
        "PYTRITON_HOME": str(PEERS / "triton" / "home"),
        # Its stub embeds whatever libpython3.11 the loader finds first, over this interpreter's standard library.
        "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
    }
    async with started("triton", command, env) as process:
        await until_ready("triton", process, ready, START_S)
        yield f"triton://127.0.0.1:{http}"
