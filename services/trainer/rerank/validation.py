"""NDCG@10 of held-out lists while a re-ranker trains."""

from collections.abc import Callable
from functools import partial

import numpy as np
from sentence_transformers import CrossEncoder
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

from services.trainer.evaluate.measures import NDCG_10, per_query
from services.trainer.evaluate.rerank import Logits, Pair
from services.trainer.finetune.validation import METRIC, check_held_out
from services.trainer.prepared import Grades
from services.trainer.rerank.data import RankedList
from services.trainer.rerank.model import logits


class ListValidation(SentenceEvaluator):
    """Each list re-ranked by the model's scores."""

    def __init__(self, lists: list[RankedList], judged: dict[str, dict[str, float]], grades: Grades) -> None:
        """Raises `TooLittleError` where nothing can be measured."""
        check_held_out(judged, grades)
        super().__init__()  # type: ignore[no-untyped-call]
        self.primary_metric = METRIC
        self._lists, self._judged, self._grades = lists, judged, grades

    def __call__(  # type: ignore[override]
        self, model: CrossEncoder, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """The mean over queries."""
        scores = score_lists(partial(logits, model), self._lists)
        run = {
            each.key: dict(zip(each.item_ids, map(float, values), strict=True))
            for each, values in zip(self._lists, scores, strict=True)
        }
        found = per_query(self._judged, run, self._grades, (NDCG_10,))[NDCG_10]
        return {METRIC: float(np.mean(list(found.values())))}


def score_lists(scorer: Callable[[list[Pair]], Logits], lists: list[RankedList]) -> list[list[float]]:
    """What `scorer` makes of every item of every list."""
    scores = scorer([(each.query, text) for each in lists for text in each.texts]).ravel().tolist()
    ends = np.cumsum([len(each.texts) for each in lists]).tolist()
    return [scores[end - len(each.texts) : end] for each, end in zip(lists, ends, strict=True)]
