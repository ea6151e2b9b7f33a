"""The baselines with their settings: the best on the validation fold of each set, of the grids in `tuning`.

ALS and BPR on Online Retail: the best of a part of their grids (12 and 4 candidates), see `docs/evaluation.md`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.evaluation import baselines
from tests.evaluation.datasets.interactions import Fold
from tests.evaluation.metrics import Scores, mean_of, score
from tests.evaluation.ranking import Scorer, rank

SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Method:
    """A baseline, by the name of its function; `random` ones run under every seed."""

    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    random: bool = False

    def scores(self, fold: Fold, seeds: Sequence[int] = SEEDS) -> Scores:
        """Learns from the history and answers for everybody; under each of `seeds` where chance has a say, as it also
        has where nothing but ties is known of new items."""
        if not self.random and not fold.is_cold:
            seeds = seeds[:1]
        return mean_of([score(fold, rank(fold, self._scorer(fold, seed), seed=seed)) for seed in seeds])

    def _scorer(self, fold: Fold, seed: int) -> Scorer:
        seeded = {"seed": seed} if self.random else {}
        scorer: Scorer = getattr(baselines, self.function)(fold, **self.settings, **seeded)
        return scorer


TUNED: Mapping[str, Mapping[str, Method]] = {
    "movielens": {
        "popularity": Method("popularity", {"days": 90}),
        "item-kNN": Method("item_knn", {"neighbours": 5, "shrinkage": 0, "weighting": "plain"}),
        "ALS": Method("als", {"factors": 32, "regularization": 0.1, "alpha": 1, "iterations": 15}, random=True),
        "BPR": Method(
            "bpr",
            {"factors": 32, "learning_rate": 0.005, "regularization": 0.01, "iterations": 200},
            random=True,
        ),
        "EASE": Method("ease", {"regularization": 100}),
    },
    "online_retail": {
        "popularity": Method("popularity", {"days": 30}),
        "item-kNN": Method("item_knn", {"neighbours": 20, "shrinkage": 0, "weighting": "tfidf"}),
        "ALS": Method("als", {"factors": 32, "regularization": 0.1, "alpha": 1, "iterations": 15}, random=True),
        "BPR": Method(
            "bpr",
            {"factors": 32, "learning_rate": 0.01, "regularization": 0.01, "iterations": 50},
            random=True,
        ),
        "EASE": Method("ease", {"regularization": 800}),
    },
}
