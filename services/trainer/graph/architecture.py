"""What the graph needs to know of a Hugging Face model, read from its config and weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from services.trainer.errors import JobError

Weights = Mapping[str, NDArray[np.float32]]

SUPPORTED = ("bert", "camembert", "roberta", "xlm-roberta")
"""`model_type`s of one computation: post-norm encoders with learned positions and GELU."""


class UnsupportedModelError(JobError):
    """The base model is of a family that has no graph here."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes and names of one encoder of the BERT family."""

    model_type: str
    layers: int
    heads: int
    hidden: int
    epsilon: float
    position_offset: int
    """Position id of the first token: RoBERTa counts from the padding id + 1."""
    prefix: str
    """What stands before `embeddings.…` in the weights' names ("bert." under a classification head)."""

    @classmethod
    def of(cls, config: Mapping[str, Any], weights: Weights) -> Self:
        """Read and check; `UnsupportedModelError` says what is not supported."""
        kind = config["model_type"]
        if kind not in SUPPORTED:
            raise UnsupportedModelError(
                f"no ONNX graph for model type {kind!r} (there is one for {', '.join(SUPPORTED)}): "
                "choose another --base, or add the family to services/trainer/graph"
            )
        for key, wanted in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
            if config.get(key, wanted) != wanted:
                raise UnsupportedModelError(f"{key} {config[key]!r} is not supported, only {wanted!r}")
        suffix = "embeddings.word_embeddings.weight"
        prefix = next(name.removesuffix(suffix) for name in weights if name.endswith(suffix))
        return cls(
            model_type=kind,
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            hidden=config["hidden_size"],
            epsilon=config["layer_norm_eps"],
            position_offset=0 if kind == "bert" else config["pad_token_id"] + 1,
            prefix=prefix,
        )

    @property
    def projection(self) -> str:
        """Name of the layer that makes a classification head's logits."""
        return "classifier" if self.model_type == "bert" else "classifier.out_proj"

    @property
    def head(self) -> str:
        """Name of the dense layer before it."""
        return f"{self.prefix}pooler.dense" if self.model_type == "bert" else "classifier.dense"

    def labels(self, weights: Weights) -> int:
        """How many logits a classification head gives; `UnsupportedModelError` where there is no such head."""
        if missing := {f"{self.projection}.weight", f"{self.head}.weight"} - set(weights):
            raise UnsupportedModelError(
                f"the base has no classification head ({', '.join(sorted(missing))} not found): a cross-encoder is a "
                "…ForSequenceClassification model"
            )
        return int(weights[f"{self.projection}.weight"].shape[0])
