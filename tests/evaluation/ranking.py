"""From scores to lists."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tests.evaluation.datasets.interactions import Fold, Ints
from tests.evaluation.metrics import DEPTH, Lists

Matrix = NDArray[np.float32]
Scorer = Callable[[Ints], Matrix]
"""Users → (users, items): larger is better."""

_USERS_AT_ONCE = 256


def rank(fold: Fold, scorer: Scorer, *, depth: int = DEPTH, seed: int = 0) -> Lists:
    """Each user's best `depth` of the candidates that they have not taken. Ties are broken by lot, because the order of
    catalogues says something of its own (MovieLens numbers well-known films first)."""
    lot = np.random.default_rng(seed).permutation(fold.candidates)
    lists: dict[int, list[int]] = {}
    for at in range(0, len(fold.users), _USERS_AT_ONCE):
        users = fold.users[at : at + _USERS_AT_ONCE]
        scores = np.where(fold.taken[users].toarray() > 0, -np.inf, scorer(users))[:, lot]
        best = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
        for user, row, order in zip(users.tolist(), scores, best, strict=True):
            lists[user] = [int(lot[column]) for column in order if np.isfinite(row[column])]
    return lists
