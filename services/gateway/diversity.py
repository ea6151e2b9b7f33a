"""Lists whose items differ: maximal marginal relevance, and places kept for items nobody has seen yet."""

import math
from collections.abc import Sequence

import numpy as np

from services.gateway.vectors import Matrix


def marginal_relevance(scores: Sequence[float], rows: Matrix, diversity: float, depth: int) -> list[int]:
    """Positions in the order to show them: each place goes to the item with the most of
    `(1 - diversity) * score - diversity * cosine to the most alike item above it` (Carbonell & Goldstein 1998).

    `scores`, best first, are 0 to 1; `rows` (len(scores), dimensions) are the items' unit vectors; `diversity` is
    0 (the order stays) to 1. The first `depth` places are chosen so, the rest keep their order.
    """
    count = len(scores)
    if diversity <= 0 or count < 2:
        return list(range(count))
    relevance = (1 - diversity) * np.asarray(scores, np.float32)
    likeness = np.zeros(count, np.float32)
    left = np.ones(count, bool)
    order: list[int] = []
    for _ in range(min(depth, count)):
        best = int(np.argmax(np.where(left, relevance - diversity * likeness, -np.inf)))
        order.append(best)
        left[best] = False
        np.maximum(likeness, rows @ rows[best], out=likeness)
    return order + np.flatnonzero(left).tolist()


def explored(new: Sequence[bool], share: float) -> list[int]:
    """Positions in the order to show them, with every `1 / share`-th place kept for a new item.

    `new` says of each item, best first, whether nobody has seen it yet; `share` is 0 (the order stays) to 1. A kept
    place goes to the best new item that is left; the others keep their order around it.
    """
    order: list[int] = []
    left = dict.fromkeys(range(len(new)))
    waiting = (at for at, is_new in enumerate(new) if is_new)
    for place in range(len(new)):
        kept = math.floor((place + 1) * share) > math.floor(place * share)
        at = next((at for at in waiting if at in left), None) if kept else None
        order.append(next(iter(left)) if at is None else at)
        del left[order[-1]]
    return order
