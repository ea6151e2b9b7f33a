"""What a fine-tuning run is asked to do."""

from dataclasses import dataclass
from enum import StrEnum

from services.trainer.run_options import JudgedRunOptions


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


@dataclass(frozen=True)
class FinetuneOptions(JudgedRunOptions):
    """Everything a run depends on, besides the prepared set and the base model. `batch`: rows; the other rows of a
    batch are a row's negatives, so more is better as far as time allows."""

    mini_batch: int = 0
    """Rows held in memory at a time (gradient caching); 0: the whole batch."""
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
    towers: int = 1
    """2: queries get weights of their own, which begin as the base's. A base of two stays one of two."""
    query_layers: int = 0
    """Layers of the query tower, where it is made; 0: all that the base has."""
    lora_rank: int = 0
    """0 trains every weight."""
    max_item_tokens: int = 128
    validation_items: int = 5_000
    """Distractors of validation, besides the items judged for its queries."""
