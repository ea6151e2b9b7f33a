"""The model that is trained, from the files of a base; and back to files, LoRA merged into the weights."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from services.trainer.base import BaseModel
from services.trainer.errors import JobError


def load(base: BaseModel, max_tokens: int, device: str | None = None) -> SentenceTransformer:
    """The base with its own pooling, in fp32, cutting texts at `max_tokens` tokens. No code of the base is run."""
    transformer = Transformer(
        str(base.path),
        model_kwargs={"dtype": torch.float32, "use_safetensors": True, "local_files_only": True},
        processor_kwargs={"local_files_only": True},
        config_kwargs={"local_files_only": True},
    )
    modules: list[torch.nn.Module] = [transformer, Pooling(int(base.config["hidden_size"]), base.pooling.value)]
    if base.normalize:
        modules.append(Normalize())
    model = SentenceTransformer(modules=modules, device=device)
    model.max_seq_length = max_tokens
    return model


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
    """Safetensors, tokenizer and module list, as `export --base` reads them."""
    model.save_pretrained(str(out), create_model_card=False)


def trainable_share(model: SentenceTransformer) -> float:
    """Share of the weights that training changes, 0 to 1."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return sum(size for size, trained in sizes if trained) / sum(size for size, _ in sizes)
