"""What a run needs of a model's layers: fewer of them, and of the last one no more than is read."""

from typing import Any

import torch
from transformers import PreTrainedModel

from services.trainer.errors import JobError
from services.trainer.graph.architecture import SUPPORTED


def keep_layers(model: PreTrainedModel, count: int, option: str) -> None:
    """Keep `count` layers, evenly spread from the first to the last (as DistilBERT: Sanh et al. 2019); `option` of the
    command line has asked for it."""
    layers = _layers(model)
    if layers is None:
        raise JobError(f"{option}: the layers of a {model.config.model_type} model are not known here")
    if not 1 <= count <= len(layers):
        raise JobError(f"{option} {count}: the base has {len(layers)}")
    kept = torch.linspace(0, len(layers) - 1, count).round().int().tolist()
    model.base_model.get_submodule("encoder").layer = torch.nn.ModuleList(layers[at] for at in kept)
    model.config.num_hidden_layers = count


def first_token_only(model: PreTrainedModel) -> None:
    """Have the last layer of what `graph` can build put out each text's first token alone, for a cross-encoder's head
    reads no other: attention sees every token, and what comes after it, that one. Weights and scores stay.

    The graph that is served does the same.
    """
    if model.config.model_type not in SUPPORTED:
        return

    def of_attended(_: torch.nn.Module, __: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
        return output[0][:, :1], *output[1:]

    def of_both(_: torch.nn.Module, attended_and_input: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(rows[:, :1] for rows in attended_and_input)

    attention: Any = _layers(model)[-1].attention
    attention.self.register_forward_hook(of_attended)
    attention.output.register_forward_pre_hook(of_both)


def _layers(model: PreTrainedModel) -> Any:
    """Where BERT and its like have them; None elsewhere."""
    layers = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    return layers if isinstance(layers, torch.nn.ModuleList) else None
