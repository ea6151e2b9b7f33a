"""Who took what and when, and how it is split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shared.items import Item

Ints = NDArray[np.int64]

DAY_S = 86_400


@dataclass(frozen=True)
class Interactions:
    """Columns of one length, by time, the oldest first. Users and items are numbered from 0."""

    users: Ints
    items: Ints
    times_s: Ints
    """Seconds since 1970."""

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def sorted(cls, users: Ints, items: Ints, times_s: Ints) -> "Interactions":
        """By time; what happened in one second stays in the order of the source."""
        order = np.argsort(times_s, kind="stable")
        return cls(users[order], items[order], times_s[order])

    def where(self, chosen: NDArray[np.bool_]) -> "Interactions":
        """The rows that are `chosen`."""
        return Interactions(self.users[chosen], self.items[chosen], self.times_s[chosen])


@dataclass(frozen=True)
class Fold:
    """A question: after `history`, what does each user of `truth` take for the first time?"""

    history: Interactions
    truth: Mapping[int, Sequence[int]]
    """Items, none of which the user has in `history`, by user; each user has a history."""
    n_users: int
    n_items: int
    candidates: Ints
    """What may be recommended: all items, but where the question is about new ones."""

    @property
    def is_cold(self) -> bool:
        """Whether only items that nobody has taken are asked for."""
        return len(self.candidates) < self.n_items

    @cached_property
    def users(self) -> Ints:
        """Whom is asked about, in ascending order."""
        return np.array(sorted(self.truth), dtype=np.int64)

    @cached_property
    def taken(self) -> sparse.csr_matrix:
        """(users, items) float32: 1 where the user took the item."""
        rows = np.unique(np.stack([self.history.users, self.history.items]), axis=1)
        shape = (self.n_users, self.n_items)
        return sparse.csr_matrix((np.ones(rows.shape[1], np.float32), (rows[0], rows[1])), shape=shape)

    def recent(self, days: float) -> sparse.csr_matrix:
        """As `taken`, but the newest interaction of a pair counts half for every `days` that it is old."""
        # By time, so the last of a pair is its newest.
        pairs, reversed_at = np.unique(
            np.stack([self.history.users, self.history.items])[:, ::-1], axis=1, return_index=True
        )
        newest = self.history.times_s[::-1][reversed_at]
        counts = 0.5 ** ((self.history.times_s[-1] - newest) / DAY_S / days)
        shape = (self.n_users, self.n_items)
        return sparse.csr_matrix((counts.astype(np.float32), (pairs[0], pairs[1])), shape=shape)

    @cached_property
    def histories(self) -> dict[int, Interactions]:
        """Each user's own interactions."""
        order = np.argsort(self.history.users, kind="stable")
        found, starts = np.unique(self.history.users[order], return_index=True)
        parts = np.split(order, starts[1:])
        return {int(user): self.history.where(part) for user, part in zip(found, parts, strict=True)}

    def of(self, users: Sequence[int]) -> "Fold":
        """The same question about fewer users."""
        truth = {user: self.truth[user] for user in users}
        return Fold(self.history, truth, self.n_users, self.n_items, self.candidates)


@dataclass(frozen=True)
class Dataset:
    """Items, and the questions asked about them."""

    name: str
    items: Sequence[Item]
    user_ids: Sequence[str]
    validation: Fold
    """Settings are chosen on this one."""
    test: Fold
    """Reported."""
    cold: Fold
    """Reported: a tenth of the items is taken out of the history altogether, and only these are candidates."""


COLD_SHARE = 0.1
COLD_SEED = 7


def cold_items(n_items: int) -> Ints:
    """The tenth of the items that are new."""
    chosen = np.random.default_rng(COLD_SEED).permutation(n_items)[: round(n_items * COLD_SHARE)]
    return np.sort(chosen)


def fold(
    history: Interactions, later: Interactions, n_users: int, n_items: int, candidates: Ints | None = None
) -> Fold:
    """What of `later` is new to users who have a history; of `candidates` only, which the history then forgets."""
    known = set(zip(history.users.tolist(), history.items.tolist(), strict=True))
    if candidates is not None:
        history = history.where(~np.isin(history.items, candidates))
        later = later.where(np.isin(later.items, candidates))
    users = set(history.users.tolist())
    truth: dict[int, list[int]] = {}
    for pair in dict.fromkeys(zip(later.users.tolist(), later.items.tolist(), strict=True)):
        if pair[0] in users and pair not in known:
            truth.setdefault(pair[0], []).append(pair[1])
    return Fold(history, truth, n_users, n_items, np.arange(n_items) if candidates is None else candidates)
