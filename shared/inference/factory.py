"""From the name of a backend, as it stands in a setting, to one that is ready to be batched for."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from shared.bundles import Bundle, BundleKind, Precision, Tower
from shared.inference.backend import Backend, Output
from shared.inference.backends.towers import Towers
from shared.inference.batcher import Batcher, Timing
from shared.inference.cross_encoder import CrossEncoder
from shared.inference.late_interaction import DEFAULT_CACHE_BYTES, LateInteraction, Storage
from shared.inference.observer import BatchTracer, EngineObserver
from shared.inference.queue import Limits
from shared.inference.scorer import Scorer


class BackendName(StrEnum):
    """Library, device and precision."""

    ONNX_INT8 = "onnx-int8"
    ONNX_FP32 = "onnx-fp32"
    ONNX_CUDA = "onnx-cuda"
    TORCH_CPU = "torch-cpu"
    TORCH_CUDA = "torch-cuda"
    """bfloat16."""
    TORCH_CUDA_FP16 = "torch-cuda-fp16"
    DUMMY = "dummy"
    """No model: answers that are right in shape only."""


GPU_LIMITS = Limits(rows=4096, bulk_rows=16384, batch_rows=1024, batch_tokens=32768)
"""A GPU is not full before some ten thousand tokens."""


def default_limits(name: BackendName) -> Limits:
    """Limits that suit the device."""
    return GPU_LIMITS if "cuda" in name else Limits()


def open_backend(
    name: BackendName,
    bundle: Bundle,
    *,
    output: Output | None = None,
    tower: Tower | None = None,
    threads: int | None = None,
    spin: bool = False,
    latency: bool = False,
) -> Backend[Any, Any]:
    """Load the model. `output=None` is the bundle kind's own; `tower` says which one of two is enough, `None` that each
    row is to be read by its own; `threads=None` follows the CPU limit.

    `spin` lets ONNX Runtime's idle threads poll for work: a lone short query is a third faster, and the cores
    are not free for anything else. For a process that has its cores to itself. `latency` is for lone short queries on
    ONNX Runtime without it: see `OnnxBackend.open`.

    Raises `BundleError` where the bundle has no such graph, `ValueError` where the machine has no such device or
    library.
    """
    if tower is None and bundle.manifest.towers == 2:
        return Towers(
            {
                each: open_backend(name, bundle, output=output, tower=each, threads=threads, spin=spin, latency=latency)
                for each in Tower
            }
        )
    tower = tower or Tower.ITEM
    match name:
        case BackendName.DUMMY:
            from shared.inference.backends.dummy import DummyBackend

            own = Output.LOGITS if bundle.manifest.kind is BundleKind.CROSS_ENCODER else Output.SENTENCE
            return DummyBackend(bundle.manifest.dimensions, output=output or own)
        case BackendName.ONNX_INT8 | BackendName.ONNX_FP32 | BackendName.ONNX_CUDA:
            with _installed("encoder-onnx-cuda" if name is BackendName.ONNX_CUDA else "encoder-cpu"):
                from shared.inference.backends.onnx import CPU, CUDA, OnnxBackend

            precision = Precision.INT8 if name is BackendName.ONNX_INT8 else Precision.FP32
            provider = CUDA if name is BackendName.ONNX_CUDA else CPU
            return OnnxBackend.open(
                bundle,
                output=output,
                tower=tower,
                precision=precision,
                threads=threads,
                provider=provider,
                spin=spin,
                latency=latency,
            )
        case _:
            # Imported where used: a CPU encoder's image has no torch.
            with _installed("encoder-gpu"):
                from shared.inference.backends.torch import TorchBackend

            device = "cpu" if name is BackendName.TORCH_CPU else "cuda"
            dtype = "float16" if name is BackendName.TORCH_CUDA_FP16 else None
            return TorchBackend.open(bundle, output=output, tower=tower, device=device, dtype=dtype, threads=threads)


@contextmanager
def _installed(extra: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"it needs {error.name}, which is not installed here: pip install 'aisle[{extra}]', or another backend"
        ) from error


def open_scorer(
    bundle: Bundle,
    *,
    backend: BackendName = BackendName.ONNX_INT8,
    limits: Limits | None = None,
    timing: Timing | None = None,
    observer: EngineObserver | None = None,
    tracer: BatchTracer | None = None,
    threads: int | None = None,
    spin: bool = False,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    storage: Storage = Storage.INT8,
    name: str = "reranker",
) -> Scorer:
    """The scorer for the bundle's kind: a cross-encoder, or late interaction over a bi-encoder.

    `cache_bytes` and `storage` are for late interaction's item token vectors.
    """
    cross = bundle.manifest.kind is BundleKind.CROSS_ENCODER
    model = open_backend(backend, bundle, output=None if cross else Output.TOKENS, threads=threads, spin=spin)
    batcher: Batcher[Any, Any] = Batcher(
        model, limits or default_limits(backend), observer=observer, tracer=tracer, timing=timing, name=name
    )
    if cross:
        return CrossEncoder(bundle, batcher)
    return LateInteraction(bundle, batcher, cache_bytes=cache_bytes, storage=storage)
