"""The cross-encoder that is trained, from the files of any base; and back to files that `export` reads."""

from pathlib import Path

import torch
from sentence_transformers import CrossEncoder
from transformers import PreTrainedModel

from services.trainer.base import BaseModel
from services.trainer.errors import JobError


def load(base: BaseModel, max_tokens: int) -> CrossEncoder:
    """One label, raw logits. The head is new where the base has none; no code of the base is run."""
    model: CrossEncoder = CrossEncoder(
        str(base.path),
        num_labels=1,
        max_length=max_tokens,
        activation_fn=torch.nn.Identity(),
        model_kwargs={"dtype": torch.float32, "use_safetensors": True, "local_files_only": True},
        local_files_only=True,
    )
    return model


def keep_layers(model: CrossEncoder, count: int) -> None:
    """Keep `count` layers, evenly spread from the first to the last (as DistilBERT: Sanh et al. 2019)."""
    inner = _inner(model)
    encoder = getattr(inner.base_model, "encoder", None)
    layers = getattr(encoder, "layer", None)
    if encoder is None or not isinstance(layers, torch.nn.ModuleList):
        raise JobError(f"--layers: the layers of a {inner.config.model_type} model are not known here")
    if not 1 <= count <= len(layers):
        raise JobError(f"--layers {count}: the base has {len(layers)}")
    kept = torch.linspace(0, len(layers) - 1, count).round().int().tolist()
    encoder.layer = torch.nn.ModuleList(layers[at] for at in kept)
    inner.config.num_hidden_layers = count


def save(model: CrossEncoder, out: Path) -> None:
    """Safetensors and tokenizer, as `export --kind cross-encoder --base` reads them."""
    _inner(model).save_pretrained(str(out))
    model.tokenizer.save_pretrained(str(out))


def _inner(model: CrossEncoder) -> PreTrainedModel:
    inner = model.transformers_model
    if inner is None:
        raise JobError("the model has no transformer")
    return inner
