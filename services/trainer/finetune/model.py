"""The model that is trained, of one tower or two, from the files of a base; and back to files, LoRA merged into the
weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from services.trainer.base import BaseModel
from services.trainer.errors import JobError
from services.trainer.layers import keep_layers
from services.trainer.progress import shown
from shared.bundles import Tower
from shared.bundles.bundle import QUERY_FOLDER

_TASKS = {Tower.QUERY: "query", Tower.ITEM: "document"}
"""sentence-transformers' names of what a `Router` tells apart."""
TASK_OF_COLUMN = {
    **dict.fromkeys(("anchor", "sentence1"), _TASKS[Tower.QUERY]),
    **dict.fromkeys(("positive", "negative", "sentence2"), _TASKS[Tower.ITEM]),
}
"""Of the training sets (`data`)."""


def load(base: BaseModel, max_tokens: int, device: str | None = None) -> SentenceTransformer:
    """The base with its own pooling, in fp32, cutting texts at `max_tokens` tokens. No code of the base is run.

    It learns by whole vectors, and encodes to those that a bundle of it has.
    """
    modules = _modules(base, max_tokens)
    if base.query is not None:
        modules = [Router.for_query_document(_modules(base.query, max_tokens), modules)]
    return SentenceTransformer(modules=modules, device=device, truncate_dim=base.dimensions or None)


def split(base: BaseModel, max_tokens: int, query_layers: int) -> SentenceTransformer:
    """Two towers that begin as the base, the one that reads queries with `query_layers` of its layers (0: all), evenly
    spread from the first to the last."""
    query = _modules(base, max_tokens)
    if query_layers:
        keep_layers(query[0].model, query_layers, "--query-layers")
    towers = Router.for_query_document(query, _modules(base, max_tokens))
    return SentenceTransformer(modules=[towers], truncate_dim=base.dimensions or None)


def encode(model: SentenceTransformer, texts: Sequence[str], tower: Tower) -> NDArray[np.float32]:
    """(texts, dimensions), rows of unit length. Prompts are in the texts already."""
    rows = model.encode(
        list(texts),
        task=_TASKS[tower],
        prompt="",
        batch_size=64,
        show_progress_bar=shown(len(texts)),
        normalize_embeddings=True,
    )
    return np.asarray(rows, np.float32)


def has_two_towers(model: SentenceTransformer) -> bool:
    """Whether queries and items are read by weights of their own."""
    return isinstance(model[0], Router)


def _modules(base: BaseModel, max_tokens: int) -> list[Any]:
    transformer = Transformer(
        str(base.path),
        model_kwargs={"dtype": torch.float32, "use_safetensors": True, "local_files_only": True},
        processor_kwargs={"local_files_only": True},
        config_kwargs={"local_files_only": True},
    )
    transformer.max_seq_length = max_tokens
    if (pooler := getattr(transformer.model, "pooler", None)) is not None:
        # Not on the way to a mean or a first token's vector: several processes would wait for its gradients.
        pooler.requires_grad_(False)
    modules: list[Any] = [transformer, Pooling(int(base.config["hidden_size"]), base.pooling.value)]
    return [*modules, Normalize()] if base.normalize else modules


def add_lora(model: SentenceTransformer, rank: int) -> None:
    """Freeze the weights and train low-rank updates of every attention and feed-forward matrix instead.

    Hu et al., "LoRA" (2021); alpha = 2 · rank, as is usual.
    """
    from peft import LoraConfig, TaskType

    model.add_adapter(
        LoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION,
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=0.05,
            target_modules="all-linear",
            exclude_modules=r".*\bpooler\b.*",
        )
    )


def merge_lora(model: SentenceTransformer) -> None:
    """Add the updates to the weights and leave a model like any other."""
    from peft.tuners.lora import LoraLayer

    inner = model.transformers_model
    if inner is None:
        raise JobError("the model has no transformer to merge into")
    for name, module in list(inner.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(inner.get_submodule(parent), child, module.get_base_layer())
    inner._hf_peft_config_loaded = False
    del inner.peft_config


def save(model: SentenceTransformer, out: Path) -> None:
    """Safetensors, tokenizer and module list, as `export --base` reads them; a query tower in a folder of its own."""
    router, parts = model[0], {out: model}
    if isinstance(router, Router):
        places = {Tower.ITEM: out, Tower.QUERY: out / QUERY_FOLDER}
        parts = {
            place: SentenceTransformer(modules=list(router.sub_modules[_TASKS[tower]].children()))
            for tower, place in places.items()
        }
    # How short its vectors are stands in the record: a second place could contradict it.
    with model.truncate_embeddings(None):
        for place, part in parts.items():
            part.save_pretrained(str(place), create_model_card=False)


def trainable_share(model: SentenceTransformer) -> float:
    """Share of the weights that training changes, 0 to 1."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return sum(size for size, trained in sizes if trained) / sum(size for size, _ in sizes)
