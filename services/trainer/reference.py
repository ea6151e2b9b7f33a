"""Plain `transformers` on CPU in fp32: what every exported graph is compared with."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoModelForSequenceClassification
from transformers.utils.logging import disable_progress_bar

from shared.bundles import BundleKind, Pooling
from shared.inference.tokens import PaddedBatch

Array = NDArray[np.float32]


class Reference:
    """The model as its authors would run it, padded, one output at a time."""

    def __init__(
        self, path: Path, kind: BundleKind, pooling: Pooling, normalize: bool, dimensions: int | None = None
    ) -> None:
        """`dimensions`: leading components of a bi-encoder's vectors; None: all."""
        disable_progress_bar()  # type: ignore[no-untyped-call]
        loader = AutoModelForSequenceClassification if kind is BundleKind.CROSS_ENCODER else AutoModel
        self._model = loader.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        ).eval()
        self._kind = kind
        self._pooling = pooling
        self._normalize = normalize
        self._dimensions = dimensions

    def run(self, batch: PaddedBatch) -> tuple[Array, ...]:
        """(logits,) of a cross-encoder, else (token embeddings with zeros at padding, sentence embedding)."""
        with torch.inference_mode():
            mask = torch.from_numpy(batch.mask)
            inputs = {"input_ids": torch.from_numpy(batch.ids), "attention_mask": mask}
            if self._kind is BundleKind.CROSS_ENCODER:
                if self._model.config.type_vocab_size > 1:
                    inputs["token_type_ids"] = torch.from_numpy(batch.types)
                return (self._model(**inputs).logits.numpy(),)
            tokens = self._model(**inputs).last_hidden_state[..., : self._dimensions] * mask.unsqueeze(-1)
            mean = tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True)
            pooled = tokens[:, 0] if self._pooling is Pooling.CLS else mean
            if self._normalize:
                pooled = torch.nn.functional.normalize(pooled, dim=-1)
            return tokens.numpy(), pooled.numpy()
