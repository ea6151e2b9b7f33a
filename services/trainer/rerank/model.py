"""The cross-encoder that is trained, from the files of any base; and back to files that `export` reads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from transformers import PreTrainedModel

from services.trainer import layers
from services.trainer.base import BaseModel
from services.trainer.errors import JobError
from services.trainer.evaluate.rerank import Logits, Pair
from services.trainer.progress import shown


def load(base: BaseModel, max_tokens: int, keep_layers: int = 0) -> CrossEncoder:
    """One label, raw logits. The head is new where the base has none; no code of the base is run.

    `keep_layers`: see `layers.keep_layers`; 0: all.
    """
    model: CrossEncoder = CrossEncoder(
        str(base.path),
        num_labels=1,
        max_length=max_tokens,
        activation_fn=torch.nn.Identity(),
        model_kwargs={"dtype": torch.float32, "use_safetensors": True, "local_files_only": True},
        local_files_only=True,
    )
    if keep_layers:
        layers.keep_layers(_inner(model), keep_layers, "--layers")
    layers.first_token_only(_inner(model))
    return model


def logits(model: CrossEncoder, pairs: Sequence[Pair]) -> Logits:
    """(pairs, 1). Prompts are in the queries already."""
    scores = model.predict(list(pairs), batch_size=64, show_progress_bar=shown(len(pairs)))
    return np.asarray(scores, np.float32).reshape(len(pairs), 1)


def save(model: CrossEncoder, out: Path) -> None:
    """Safetensors and tokenizer, as `export --kind cross-encoder --base` reads them."""
    _inner(model).save_pretrained(str(out))
    model.tokenizer.save_pretrained(str(out))


def _inner(model: CrossEncoder) -> PreTrainedModel:
    inner = model.transformers_model
    if inner is None:
        raise JobError("the model has no transformer")
    return inner
