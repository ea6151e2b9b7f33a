"""What a fine-tuning run is asked to do."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Negatives(StrEnum):
    """Where a row's hard negative comes from, besides the other rows of its batch."""

    NONE = "none"
    JUDGED = "judged"
    """Items that people judged irrelevant to the query; rows of queries without any get a random item."""
    MINED = "mined"
    """Items that the base model ranks high for the query and nobody judged to be any good."""
    RETRIEVED = "retrieved"
    """The same, ranked by a running `vector_retrieval`."""


class GradedLoss(StrEnum):
    """A second task on all judgements, whose order of cosines should be the order of grades."""

    NONE = "none"
    COSENT = "cosent"
    """Su (2022); https://kexue.fm/archives/8847."""
    ANGLE = "angle"
    """Li and Li, "AnglE-optimized Text Embeddings" (2023)."""


class MixedPrecision(StrEnum):
    """How a GPU calculates; weights stay fp32."""

    NONE = "none"
    BF16 = "bf16"
    FP16 = "fp16"


@dataclass(frozen=True)
class FinetuneOptions:
    """Everything a run depends on, besides the prepared set and the base model."""

    data: Path
    out: Path
    base: str = "minilm"
    epochs: float = 1.0
    max_steps: int = -1
    """Optimiser steps; −1: as many as `epochs` say."""
    batch: int = 64
    """Rows; the other rows of a batch are a row's negatives, so more is better as far as time allows."""
    mini_batch: int = 0
    """Rows held in memory at a time (gradient caching); 0: the whole batch."""
    learning_rate: float = 3e-5
    warmup: float = 0.1
    """Share of all steps."""
    weight_decay: float = 0.01
    scale: float = 20.0
    """Cosines are multiplied by this before the softmax; 1 / temperature."""
    positive_grade: float | None = None
    """Grades from here on are positives; None: the relevant grade of the data set."""
    grade_weights: bool = True
    """A positive weighs as much as its grade gains in NDCG."""
    correct_popularity: bool = True
    negatives: Negatives = Negatives.NONE
    retrieval: str = ""
    """host:port of `vector_retrieval`, for negatives that are retrieved."""
    graded_loss: GradedLoss = GradedLoss.NONE
    dimensions: tuple[int, ...] = ()
    """Matryoshka: leading components that must work as vectors of their own; empty: only all of them."""
    lora_rank: int = 0
    """0 trains every weight."""
    mixed_precision: MixedPrecision = MixedPrecision.NONE
    max_item_tokens: int = 128
    evaluations: int = 4
    """Validations a run, evenly spread; the best one's weights are kept."""
    patience: int = 2
    """Validations without a better NDCG@10 after which training stops."""
    validation_queries: int = 400
    validation_items: int = 5_000
    """Distractors of validation, besides the items judged for its queries."""
    train_queries: int = 0
    """Use only this many queries of the training split (0: all): for curves over training size and for trials."""
    seed: int = 0
    resume: bool = False
