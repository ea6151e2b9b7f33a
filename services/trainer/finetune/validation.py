"""NDCG@10 on held-out queries while training, by the same measures as the final evaluation."""

import random

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

from services.trainer.errors import TooLittleError
from services.trainer.evaluate.encode import highest
from services.trainer.evaluate.measures import NDCG_10, Qrels, per_query
from services.trainer.finetune.data import Judgements, Texts
from services.trainer.finetune.model import encode
from services.trainer.prepared import Grades
from shared.bundles import Tower

METRIC = f"valid_{NDCG_10}"
_TOP = 100


def check_held_out(judged: Qrels, grades: Grades) -> None:
    """Raises `TooLittleError` where no held-out query has a relevant item: NDCG would be no number, and which weights
    are best not known."""
    if not any(grade >= grades.relevant for found in judged.values() for grade in found.values()):
        raise TooLittleError(
            f"none of {len(judged)} held-out queries has an item of grade {grades.relevant:g} or more: nothing says "
            "which weights are best; prepare with a lower --relevant, or with more judgements in valid"
        )


class RetrievalValidation(SentenceEvaluator):
    """Every query against the items judged for any of them, and as many distractors as time allows.

    Fewer distractors than the catalogue has make the numbers higher than the final ones, not their order different.
    """

    def __init__(
        self, judgements: Judgements, texts: Texts, items: dict[str, str], grades: Grades, distractors: int, seed: int,
        name: str = "valid",
    ) -> None:  # fmt: skip
        """`name`: what the measures' names begin with. Raises `TooLittleError` where nothing can be measured."""
        check_held_out(judgements.judged, grades)
        super().__init__()  # type: ignore[no-untyped-call]
        self.primary_metric = f"{name}_{NDCG_10}"
        self._name = name
        self._grades = grades
        self._judged = judgements.judged
        self._keys = sorted(judgements.judged)
        self._queries = [texts.query(judgements.queries[key]) for key in self._keys]
        judged = {item for found in judgements.judged.values() for item in found}
        others = sorted(set(items) - judged)
        sampled = random.Random(seed).sample(others, min(distractors, len(others)))
        self._ids = sorted(judged) + sampled
        self._items = [items[item] for item in self._ids]

    def __call__(  # type: ignore[override]
        self, model: SentenceTransformer, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """NDCG@10 and Recall@100, means over queries."""
        queries, items = encode(model, self._queries, Tower.QUERY), encode(model, self._items, Tower.ITEM)
        run = {
            key: {self._ids[at]: float(scores[at]) for at in highest(scores, _TOP)}
            for key, scores in zip(self._keys, queries @ items.T, strict=True)
        }
        found = per_query(self._judged, run, self._grades, (NDCG_10, "recall@100"))
        return {f"{self._name}_{name}": float(np.mean(list(values.values()))) for name, values in found.items()}
