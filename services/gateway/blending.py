"""How the parts of a recommendation's score become one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from services.gateway.ports import Candidate
from services.gateway.ranking import Ranked


class Weights(NamedTuple):
    """What each part of a score counts; at least one is above 0. Only their ratios matter."""

    likeness: float = 0.0
    """Likeness to what the request starts from: cosine of vectors, or the score of a search."""
    related: float = 0.0
    """What others took together with it."""
    popularity: float = 0.0
    """What others take now."""
    user: float = 0.0
    """Likeness to the user, where the request starts from something else."""


class Parts(NamedTuple):
    """The parts of the candidates' scores, one number a candidate, each in its own unit; larger is better, and what is
    below 0 counts as 0. A part that is empty has no say."""

    likeness: Sequence[float] = ()
    related: Sequence[float] = ()
    popularity: Sequence[float] = ()
    user: Sequence[float] = ()


def blend(candidates: Sequence[Candidate], parts: Parts, weights: Weights, *, from_user: bool) -> list[Ranked]:
    """The candidates in their order, scored by the weighted mean of the parts, each scaled by its best: 0 to 1.

    A linear combination of scaled scores is the fusion whose weights people can read and set, and no worse than
    rank-based ones (Bruch et al. 2023). `from_user` says that likeness and relations are to what the user did.
    """
    shares = np.array([weight if len(part) else 0.0 for weight, part in zip(weights, parts, strict=True)])
    scaled = np.array([_scaled(part, len(candidates)) for part in parts])
    added = scaled * (shares / (shares.sum() or 1.0))[:, None]
    scores = added.sum(axis=0)
    personal = added[[0, 1]].sum(axis=0) if from_user else added[3]
    return [
        Ranked(
            candidate,
            float(scores[at]),
            user_score=parts.user[at] if len(parts.user) else None,
            related_score=float(scaled[1][at]) or None,
            popularity_score=float(scaled[2][at]) or None,
            personalization=float(personal[at]) if from_user or len(parts.user) else None,
        )
        for at, candidate in enumerate(candidates)
    ]


def _scaled(part: Sequence[float], count: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    if not len(part):
        return np.zeros(count)
    values = np.maximum(np.asarray(part, np.float64), 0.0)
    return values / (values.max(initial=0.0) or 1.0)
