"""A smaller model out of a larger one: some of its layers."""

import torch
from transformers import PreTrainedModel

from services.trainer.errors import JobError


def keep_layers(model: PreTrainedModel, count: int, option: str) -> None:
    """Keep `count` layers, evenly spread from the first to the last (as DistilBERT: Sanh et al. 2019); `option` of the
    command line has asked for it."""
    encoder = getattr(model.base_model, "encoder", None)
    layers = getattr(encoder, "layer", None)
    if encoder is None or not isinstance(layers, torch.nn.ModuleList):
        raise JobError(f"{option}: the layers of a {model.config.model_type} model are not known here")
    if not 1 <= count <= len(layers):
        raise JobError(f"{option} {count}: the base has {len(layers)}")
    kept = torch.linspace(0, len(layers) - 1, count).round().int().tolist()
    encoder.layer = torch.nn.ModuleList(layers[at] for at in kept)
    model.config.num_hidden_layers = count
