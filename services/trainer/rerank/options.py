"""What a re-ranker's training is asked to do."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from services.trainer.finetune.options import MixedPrecision


class RankLoss(StrEnum):
    """What a cross-encoder learns from the grades of a query's items."""

    POINTWISE = "pointwise"
    """Each grade by itself: cross-entropy with the grade between 0 and 1."""
    PAIRWISE = "pairwise"
    """Which of two is better: RankNet (Burges et al. 2005)."""
    LISTWISE = "listwise"
    """The order of the list, as NDCG values it: LambdaLoss (Wang et al. 2018)."""
    DISTILL = "distill"
    """What a teacher says, in place of the grades."""


@dataclass(frozen=True)
class RerankOptions:
    """Everything a run depends on, besides the prepared set, the base and the teacher."""

    data: Path
    out: Path
    base: str = "minilm"
    loss: RankLoss = RankLoss.POINTWISE
    teacher: str = ""
    """Folder of a cross-encoder that this trainer made; with `RankLoss.DISTILL`."""
    layers: int = 0
    """Keep this many of the base's layers, evenly spread; 0: all."""
    retriever: str = ""
    """Bi-encoder whose best unjudged items are negatives; empty: random items of the catalogue."""
    negatives: int = 4
    """Unjudged items a query. Without any the model never sees what it will mostly be shown: items nobody asked for."""
    epochs: float = 1.0
    max_steps: int = -1
    """Optimiser steps; −1: as many as `epochs` say."""
    batch: int = 32
    """Pairs (pointwise, distill) or queries (pairwise, listwise) a step."""
    learning_rate: float = 5e-5
    warmup: float = 0.1
    """Share of all steps."""
    weight_decay: float = 0.01
    mixed_precision: MixedPrecision = MixedPrecision.NONE
    max_pair_tokens: int = 96
    """Query and item together, in training and in service."""
    evaluations: int = 3
    patience: int = 2
    """Validations without a better NDCG@10 after which training stops."""
    validation_queries: int = 200
    train_queries: int = 0
    """Use only this many queries of the training split; 0: all."""
    seed: int = 0
    resume: bool = False
