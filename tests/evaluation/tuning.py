"""Chooses settings on the validation folds: of the baselines, and of what the service does with a history.

python -m tests.evaluation --tune: prints every candidate; the best were written down in `methods` and in the settings
of the services.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from services.user_events.learning import Interactions, learn
from tests.evaluation import baselines, history
from tests.evaluation.baselines import WEIGHTINGS
from tests.evaluation.datasets.interactions import Dataset, Fold, Ints
from tests.evaluation.methods import Method
from tests.evaluation.metrics import score
from tests.evaluation.ranking import Matrix, rank

Report = Callable[[str], None]

GRIDS: dict[str, dict[str, Sequence[Any]]] = {
    "popularity": {"days": (7, 14, 30, 60, 90, 180, 365, 10_000)},
    "item_knn": {"neighbours": (3, 5, 10, 20, 50, 500), "shrinkage": (0, 10, 100), "weighting": WEIGHTINGS},
    "ease": {"regularization": (50, 100, 200, 400, 800, 1_600)},
    "als": {"factors": (16, 32, 64, 128), "regularization": (0.1, 1, 10), "alpha": (0.5, 1, 5), "iterations": (15,)},
    "bpr": {
        "factors": (32, 128),
        "learning_rate": (0.005, 0.01, 0.03),
        "regularization": (0.001, 0.01),
        "iterations": (50, 100, 200),
    },
}
RANDOM = ("als", "bpr")

HISTORIES: tuple[dict[str, Any], ...] = (
    {"length": 100_000},
    {"days": 30},
    {"days": 90},
    {"positions": 10},
    {"positions": 20},
    {"positions": 50},
    *({"occasions": half} for half in (1, 2, 3, 4, 6)),
    *({"occasions": 3, "days": days} for days in (90, 180)),
    *({"occasions": 3, "gap_s": gap} for gap in (0, 60, 600)),
    *({"occasions": 3, "length": length} for length in (20, 50, 200)),
)
CHOSEN_HISTORY = {"occasions": 3}
RELATIONS: tuple[dict[str, Any], ...] = (
    *({"regularisation": 500, "days": days} for days in (30, 60, 90, 180, 10_000)),
    *({"regularisation": strength, "days": 90} for strength in (50, 100, 200, 1_000)),
)
CHOSEN_RELATIONS = {"regularisation": 500, "days": 90}
HEAD_ITEMS = 5_000
WEIGHTS = tuple(product((1.0,), (0.0, 0.1, 0.3, 0.5, 1.0), (0.0, 0.1, 0.2, 0.5)))
"""Related, likeness, popularity."""
CANDIDATES = 200


def tune(dataset: Dataset, vectors: Matrix, report: Report, only: Sequence[str]) -> None:
    """Reports NDCG@10 and Recall@20 on the validation fold of every candidate; of the parts `only`, if any."""
    fold = dataset.validation
    for function, grid in GRIDS.items():
        if not only or function in only:
            for settings in _combinations(grid):
                scores = Method(function, settings, random=function in RANDOM).scores(fold, seeds=(0,))
                report(_line(dataset, f"{function} {settings}", scores))
    parts = {
        "relations": lambda: _relations(fold),
        "history": lambda: _histories(fold),
        "blend": lambda: _blends(fold, vectors),
    }
    for part, candidates in parts.items():
        if not only or part in only:
            for name, lists in candidates():
                report(_line(dataset, name, score(fold, lists)))


def _combinations(grid: dict[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(grid, values, strict=True)) for values in product(*grid.values()))


def _line(dataset: Dataset, name: str, scores: Any) -> str:
    ndcg, recall = (scores.by_user[measure].mean() for measure in ("ndcg@10", "recall@20"))
    return f"{dataset.name}  ndcg@10 {ndcg:.4f}  recall@20 {recall:.4f}  {name}"


def relations(fold: Fold, *, regularisation: float, days: float) -> Matrix:
    """What the `relations` job learns; an interaction counts half for every `days` that it is old."""
    taken = fold.recent(days).tocoo()
    strengths = taken.data.astype(np.float64)
    interactions = Interactions(taken.row.astype(np.int64), taken.col.astype(np.int64), strengths)
    matrix = np.zeros((fold.n_items, fold.n_items), np.float32)
    for neighbours in learn(interactions, fold.n_items, HEAD_ITEMS, regularisation):
        for other, weight in neighbours.others:
            matrix[neighbours.item, other] = weight
    return matrix


def _relations(fold: Fold) -> Iterator[tuple[str, Any]]:
    weights = history.weights(fold, **CHOSEN_HISTORY)
    for settings in RELATIONS:
        related = relations(fold, **settings)
        yield f"related {settings}", rank(fold, lambda users, related=related: np.asarray(weights[users] @ related))


def _histories(fold: Fold) -> Iterator[tuple[str, Any]]:
    related = relations(fold, **CHOSEN_RELATIONS)
    for settings in HISTORIES:
        weights = history.weights(fold, **settings)
        yield f"related by history {settings}", rank(fold, lambda users, w=weights: np.asarray(w[users] @ related))


def _blends(fold: Fold, vectors: Matrix) -> Iterator[tuple[str, Any]]:
    related = relations(fold, **CHOSEN_RELATIONS)
    weights = history.weights(fold, **CHOSEN_HISTORY)
    popular = baselines.popularity(fold, days=30)

    def parts(users: Ints) -> tuple[Matrix, Matrix, Matrix]:
        taken = fold.taken[users].toarray() > 0
        every = [np.asarray(weights[users] @ related), np.asarray(weights[users] @ vectors) @ vectors.T, popular(users)]
        every = [np.where(taken, -np.inf, part) for part in every]
        tops = [_top(part, CANDIDATES) for part in every]
        # Likeness is known of every candidate; relations and popularity only of those that their own lists hold.
        known = [tops[0], np.logical_or.reduce(tops), tops[2]]
        scaled = [_scaled(np.where(held, np.maximum(part, 0.0), 0.0)) for held, part in zip(known, every, strict=True)]
        return scaled[0], scaled[1], scaled[2]

    for shares in WEIGHTS:

        def blended(users: Ints, shares: tuple[float, ...] = shares) -> Matrix:
            return sum(share * part for share, part in zip(shares, parts(users), strict=True))

        yield "related {} + likeness {} + popularity {}".format(*shares), rank(fold, blended)


def _top(part: Matrix, count: int) -> np.ndarray:
    best = np.argpartition(-part, count, axis=1)[:, :count]
    chosen = np.zeros(part.shape, bool)
    np.put_along_axis(chosen, best, True, axis=1)
    return chosen


def _scaled(part: Matrix) -> Matrix:
    return part / np.maximum(part.max(axis=1, keepdims=True), 1e-12)
