"""ONNX Runtime: fp32 or int8 on CPU, fp32 on CUDA."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from shared.bundles import Bundle, BundleKind, Precision, Tower
from shared.inference.backend import Output
from shared.inference.backends.rows import Result, split_rows
from shared.inference.cpu import inference_threads
from shared.inference.tokens import PaddedBatch, Tokens, pad

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


def open_session(
    path: Path, *, threads: int | None = None, provider: str = CPU, spin: bool = False
) -> onnxruntime.InferenceSession:
    """A session for one graph of a bundle. `threads=None` follows the cgroup; `spin` lets idle threads burn CPU."""
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(
            f"ONNX Runtime has no {provider} here, only {', '.join(onnxruntime.get_available_providers())}; "
            "for CUDA, install onnxruntime-gpu in place of onnxruntime: the extra encoder-onnx-cuda"
        )
    if provider == CUDA and hasattr(onnxruntime, "preload_dlls"):
        # CUDA's libraries, where they are Python packages: the dynamic loader does not look there.
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = inference_threads(threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The graph is written fused; the extended level would fuse LayerNorm back into an operator that is slower.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # Patterns are kept per input shape, for ever: with batches of every shape that is a leak.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    session = onnxruntime.InferenceSession(path, options, providers=[provider])
    if session.get_providers()[0] != provider:
        # It would have gone on by the CPU, and said so in its log alone.
        raise ValueError(
            f"ONNX Runtime could not start {provider}: its libraries or a device are missing; "
            "for CUDA, pip install 'onnxruntime-gpu[cuda,cudnn]' and look at nvidia-smi"
        )
    return session


SMALL_TOKENS = 768
"""Tokens, divided by the session's threads, up to which a batch runs on one thread: waking others for layer after layer
takes longer than they save. Measured on 2 cores, int8, 1 / 2 threads, ms of time and of processor: 6 tokens 1.3 / 1.8
and 1.3 / 2.3, 49 tokens 4.5 / 6.5 and 4.5 / 8.5, 105 tokens 9.3 / 11.1 and 9.3 / 16.2, 214 tokens 20.8 / 20.0 and
20.8 / 31.7, 423 tokens 46 / 35 and 46 / 58. Where cores are shared, what counts is the processor's time: 64 callers get
1.13 times the queries/s with 384 than with 32, and 16 callers 1.25 times. More than 2 threads were not measured."""


class OnnxBackend:
    """One graph of a bundle, fetching one of its outputs; what is not fetched is not computed.

    Token vectors are on the way to a sentence vector: where a row asks for both, the second costs a copy.

    `small`, where given, is the same graph on one thread: it runs the batches of up to `small_tokens`.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        output: Output,
        small: onnxruntime.InferenceSession | None = None,
        small_tokens: int = 0,
    ) -> None:
        self._session = session
        self._small = small
        self._small_tokens = small_tokens
        self._output = output
        self._needs_types = any(node.name == "token_type_ids" for node in session.get_inputs())

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        *,
        output: Output | None = None,
        tower: Tower = Tower.ITEM,
        precision: Precision = Precision.INT8,
        threads: int | None = None,
        provider: str = CPU,
        spin: bool = False,
        latency: bool = False,
    ) -> Self:
        """`output=None` is the bundle kind's own: a sentence vector, or logits.

        `latency` keeps the graph a second time, for one thread (`SMALL_TOKENS`): a lone short query is a quarter
        faster, at the price of the graph's size in memory.
        """
        if output is None:
            output = Output.LOGITS if bundle.manifest.kind is BundleKind.CROSS_ENCODER else Output.SENTENCE
        path = bundle.onnx_path(precision, tower)
        several = inference_threads(threads)
        # Threads that poll need no waking, and one thread is what a small batch would get.
        alone = latency and not spin and provider == CPU and several > 1
        small = open_session(path, threads=1, provider=provider) if alone else None
        session = open_session(path, threads=threads, provider=provider, spin=spin)
        return cls(session, output, small, SMALL_TOKENS // several)

    def prepare(self, rows: Sequence[Tokens]) -> PaddedBatch:
        """Right-padded arrays; the graph packs them, so padding costs little."""
        return pad(rows)

    def run(self, prepared: PaddedBatch) -> Sequence[NDArray[np.float32]]:
        """The forward pass."""
        feeds: dict[str, Any] = {"input_ids": prepared.ids, "attention_mask": prepared.mask}
        if self._needs_types:
            feeds["token_type_ids"] = prepared.types
        session = self._session
        if self._small is not None and prepared.mask.sum() <= self._small_tokens:
            session = self._small
        wanted = [self._output]
        if self._output is Output.SENTENCE and any(prepared.token_vectors):
            wanted.append(Output.TOKENS)
        outputs: Sequence[NDArray[np.float32]] = session.run(wanted, feeds)
        return outputs

    def finish(self, prepared: PaddedBatch, raw: Sequence[NDArray[np.float32]]) -> Sequence[Result]:
        """One result a row."""
        return split_rows(self._output, prepared, *raw)
