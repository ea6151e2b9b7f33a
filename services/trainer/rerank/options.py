"""What a re-ranker's training is asked to do."""

from dataclasses import dataclass
from enum import StrEnum

from services.trainer.run_options import JudgedRunOptions, Keep


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
class RerankOptions(JudgedRunOptions):
    """Everything a run depends on, besides the prepared set, the base and the teacher. `batch`: pairs (pointwise,
    distill) or queries (pairwise, listwise)."""

    base: str = ""
    """Empty: the teacher where there is one, of which a student keeps `layers`; else `minilm`. A shop's own
    fine-tuned bi-encoder is the better start: measured, docs/training.md."""
    batch: int = 32
    learning_rate: float = 5e-5
    evaluations: int = 3
    keep: Keep = Keep.LAST
    """Measured, docs/training.md: the best of three validations over 300 queries was a third of the training."""
    validation_queries: int = 200
    loss: RankLoss = RankLoss.POINTWISE
    teacher: str = ""
    """Folder of a cross-encoder that this trainer made; with `RankLoss.DISTILL`."""
    layers: int = 0
    """Keep this many of the base's layers, evenly spread; 0: all."""
    retriever: str = ""
    """Bi-encoder whose best unjudged items are negatives; empty: random items of the catalogue."""
    retrieval: str = ""
    """host:port of `vector_retrieval`, whose best unjudged items are negatives: what the model will be shown in
    service. By words and the vectors of `retriever`; by words alone without one."""
    negatives: int = 4
    """Unjudged items a query. Without any the model never sees what it will mostly be shown: items nobody asked for."""
    random_negatives: int = 1
    """Random items a query, besides those that `retriever` or `retrieval` finds. Without any the model learns what
    tells a good hit from a bad one, and nothing of what is no hit at all."""
    max_pair_tokens: int = 96
    """Query and item together, in training and in service."""
