"""PyTorch: the CPU reference in fp32, and CUDA in bf16 or fp16.

Batches are padded to buckets, not to the token: CUDA kernels are chosen, and memory is laid out, per shape, and a
few dozen shapes can be warmed up where hundreds cannot. The code is the same on both devices, so the CPU tests
cover it; a test marked `gpu` checks the rest where there is CUDA.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoModelForSequenceClassification
from transformers.utils.logging import disable_progress_bar

from shared.bundles import Bundle, BundleError, BundleKind, Pooling, Tower
from shared.inference.backend import Output
from shared.inference.backends.rows import Result, split_rows
from shared.inference.cpu import inference_threads
from shared.inference.tokens import PaddedBatch, Tokens, pad

log = logging.getLogger(__name__)

BUCKET = 16
"""Tokens: on CUDA, widths are rounded up to a multiple; also what tensor cores want."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    batch: PaddedBatch
    ids: torch.Tensor
    mask: torch.Tensor
    types: torch.Tensor | None


class TorchBackend:
    """One bundle's model in `transformers`, with scaled-dot-product attention, giving one output."""

    def __init__(self, model: Any, output: Output, pooling: Pooling, normalize: bool, dimensions: int) -> None:
        """`dimensions`: leading components of a bi-encoder's vectors; a cross-encoder has none."""
        self._model = model
        self._output = output
        self._pooling = pooling
        self._normalize = normalize
        self._dimensions = dimensions
        self._device: torch.device = model.device
        self._multiple = BUCKET if self._device.type == "cuda" else 1
        self._needs_types = output is Output.LOGITS and getattr(model.config, "type_vocab_size", 0) > 1

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        *,
        output: Output | None = None,
        tower: Tower = Tower.ITEM,
        device: str = "cpu",
        dtype: str | None = None,
        threads: int | None = None,
    ) -> Self:
        """`dtype`: float32, bfloat16 or float16; None is float32 on CPU, bfloat16 on CUDA.

        Raises `ValueError` where `device` is not there, `BundleError` for a bundle without weights.
        """
        path = bundle.tower_path(tower)
        if not any(path.glob("*.safetensors")):
            raise BundleError(f"bundle {bundle.path} has no weights for torch: export it again, without --slim")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError("torch sees no CUDA device here: use a CPU backend, or check the driver")
        if device == "cpu":
            torch.set_num_threads(inference_threads(threads))
        manifest = bundle.manifest
        cross = manifest.kind is BundleKind.CROSS_ENCODER
        disable_progress_bar()  # type: ignore[no-untyped-call]
        loader = AutoModelForSequenceClassification if cross else AutoModel
        model = loader.from_pretrained(
            path,
            dtype=DTYPES[dtype or ("float32" if device == "cpu" else "bfloat16")],
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        own = Output.LOGITS if cross else Output.SENTENCE
        return cls(model.eval().to(device), output or own, manifest.pooling, manifest.normalize, manifest.dimensions)

    def prepare(self, rows: Sequence[Tokens]) -> _Inputs:
        """Padded arrays on the device."""
        batch = pad(rows, self._multiple)
        return _Inputs(
            batch,
            self._to_device(batch.ids),
            self._to_device(batch.mask),
            self._to_device(batch.types) if self._needs_types else None,
        )

    def run(self, prepared: _Inputs) -> Sequence[NDArray[np.float32]]:
        """The forward pass and pooling, in the model's dtype; pooled and normalised in float32."""
        with torch.inference_mode():
            inputs = {"input_ids": prepared.ids, "attention_mask": prepared.mask}
            if prepared.types is not None:
                inputs["token_type_ids"] = prepared.types
            outputs = self._model(**inputs)
            return [result.cpu().numpy() for result in self._select(outputs, prepared)]

    def finish(self, prepared: _Inputs, raw: Sequence[NDArray[np.float32]]) -> Sequence[Result]:
        """One result a row."""
        return split_rows(self._output, prepared.batch, *raw)

    def _select(self, outputs: Any, prepared: _Inputs) -> Sequence[torch.Tensor]:
        if self._output is Output.LOGITS:
            return [outputs.logits.float()]
        mask = prepared.mask
        tokens: torch.Tensor = outputs.last_hidden_state[..., : self._dimensions].float() * mask.unsqueeze(-1)
        if self._output is Output.TOKENS:
            return [tokens]
        mean = tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True)
        pooled = tokens[:, 0] if self._pooling is Pooling.CLS else mean
        sentence = torch.nn.functional.normalize(pooled, dim=-1) if self._normalize else pooled
        # On a GPU the copy of token vectors takes time: only where somebody asks.
        return [sentence, tokens] if any(prepared.batch.token_vectors) else [sentence]

    def _to_device(self, array: NDArray[np.int64]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        # Pinned memory lets the copy overlap with the previous batch's kernels.
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else tensor
