"""Which items go with which, learned from who did what with both.

The most popular items are learned together: EASE (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW
2019), the linear model that predicts each item of a user from the user's other items. Its closed form weighs out what
popular items share with everything, which counting cannot. It takes the inverse of a matrix of the head's size; items
beyond the head get theirs by counting: cosine over users, shrunk where few users speak.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

NEIGHBOURS = 100
"""Kept of each item: a history of a few items then yields some hundred candidates."""
SHRINKAGE = 20.0
"""Added to what cosines are divided by, in interactions: two items that one user had are no pair yet."""
MAX_ITEMS_A_USER = 500
"""Of the strongest: beyond that it is a buyer for many, or a machine, and costs the square."""

_TAIL_ROWS = 256
_WEIGHT_DIGITS = 6

Floats = NDArray[np.float32]
Matrix = Any
"""Of scipy.sparse, which has no types."""


@dataclass(frozen=True, slots=True)
class Interactions:
    """Who had to do with what, how strongly: three arrays of one length, each pair of user and item once. Users and
    items by number; strengths above 0, of any scale."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    strengths: NDArray[np.float64]


class Collector:
    """Gathers interactions, of which a pair's strongest counts. 20 bytes each."""

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._users: dict[bytes, int] = {}
        self._items: dict[str, int] = {}
        self._parts: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]] = []

    def add(self, rows: Iterable[tuple[bytes, str, float, float]]) -> None:
        """Takes (user, item, weight above 0, time) of each interaction; time in the unit of the half-life."""
        known = [
            (
                self._users.setdefault(user, len(self._users)),
                self._items.setdefault(item, len(self._items)),
                weight,
                at,
            )
            for user, item, weight, at in rows
        ]
        if known:
            users, items, weights, times = zip(*known, strict=True)
            # The logarithm of a weight that halves every half-life, but for a constant that is known at the end.
            strengths = np.log2(np.array(weights)) + np.array(times, np.float64) / self._half_life
            self._parts.append((np.array(users, np.int32), np.array(items, np.int32), strengths))

    @property
    def item_ids(self) -> list[str]:
        """The items by number."""
        return list(self._items)

    def interactions(self) -> Interactions:
        """What was gathered, decayed to the time of the newest."""
        if not self._parts:
            nothing = np.empty(0, np.int64)
            return Interactions(nothing, nothing, np.empty(0))
        users, items, strengths = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        pairs = users.astype(np.int64) * len(self._items) + items
        order = np.argsort(pairs, kind="stable")
        pairs, starts = np.unique(pairs[order], return_index=True)
        strongest = np.maximum.reduceat(strengths[order], starts)
        return Interactions(pairs // len(self._items), pairs % len(self._items), np.exp2(strongest - strongest.max()))


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What goes with one item, the strongest first. Items by number."""

    item: int
    others: Sequence[tuple[int, float]]


def learn(interactions: Interactions, items: int, head_items: int, regularisation: float) -> Iterator[Neighbours]:
    """The neighbours of each of `items` items that has any. `regularisation` is in interactions of usual strength."""
    if not len(interactions.items):
        return
    matrix = _matrix(interactions, items)
    popularity = np.asarray(matrix.power(2).sum(axis=0)).ravel()
    by_popularity = np.argsort(-popularity, kind="stable")
    by_popularity = by_popularity[popularity[by_popularity] > 0]
    head, tail = by_popularity[:head_items], by_popularity[head_items:]
    yield from _ease(matrix, head, regularisation)
    yield from _cosines(matrix, tail, np.sqrt(popularity))


def _matrix(interactions: Interactions, items: int) -> Matrix:
    """Users × items. Scaled so that a usual interaction is 1: a shop that knows views only must not look less certain
    than one that knows purchases."""
    strengths = interactions.strengths / np.sqrt(np.mean(interactions.strengths**2))
    users, numbers = np.unique(interactions.users, return_inverse=True)
    kept = _strongest(numbers, strengths)
    return sparse.csr_matrix(
        (strengths[kept].astype(np.float32), (numbers[kept], interactions.items[kept])), shape=(len(users), items)
    )


def _strongest(users: NDArray[np.int64], strengths: NDArray[np.float64]) -> NDArray[np.int64]:
    order = np.lexsort((-strengths, users))
    starts = np.searchsorted(users[order], np.arange(users.max() + 1))
    rank = np.arange(len(order)) - starts[users[order]]
    return order[rank < MAX_ITEMS_A_USER]


def _ease(matrix: Matrix, head: NDArray[np.int64], regularisation: float) -> Iterator[Neighbours]:
    if not len(head):
        return
    inner = matrix[:, head].astype(np.float64)
    # In double precision: the condition number grows with the users, and a million of them would use up a float's.
    gram = np.asfortranarray((inner.T @ inner).toarray())
    gram[np.diag_indices_from(gram)] += regularisation
    # The inverse of a symmetric, positive matrix, in place: a third of the work of a general one.
    factor, failed = lapack.dpotrf(gram, lower=1, overwrite_a=1)
    inverse, failed_too = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if failed or failed_too:
        raise ArithmeticError("the relations cannot be learned: raise relations_regularisation")
    diagonal = np.diag(inverse).copy()
    for row, item in enumerate(head):
        # Of which the lower half is there.
        weights = -np.concatenate([inverse[row, :row], inverse[row:, row]]) / diagonal
        weights[row] = 0.0
        yield Neighbours(int(item), _top(weights, head))


def _cosines(matrix: Matrix, tail: NDArray[np.int64], norms: Floats) -> Iterator[Neighbours]:
    columns = matrix.tocsc()
    everything = np.arange(matrix.shape[1])
    for at in range(0, len(tail), _TAIL_ROWS):
        some = tail[at : at + _TAIL_ROWS]
        together = (columns[:, some].T @ matrix).toarray()
        together /= norms[some, None] * norms[None, :] + SHRINKAGE
        together[np.arange(len(some)), some] = 0.0
        for item, weights in zip(some, together, strict=True):
            yield Neighbours(int(item), _top(weights, everything))


def _top(weights: NDArray[Any], items: NDArray[np.int64]) -> list[tuple[int, float]]:
    """Those that say most, for an item or against it. (With interactions that fade, leaving out the latter made no
    difference on either evaluated set.)"""
    most = min(NEIGHBOURS, len(weights))
    best = np.argpartition(-np.abs(weights), most - 1)[:most]
    best = best[np.lexsort((items[best], -weights[best]))]
    return [(int(items[at]), round(float(weights[at]), _WEIGHT_DIGITS)) for at in best if weights[at] != 0]
