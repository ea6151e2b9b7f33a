"""How much each item of a user's history counts: the user model of `services.gateway`, over a whole fold at once."""

import numpy as np
from scipy import sparse

from tests.evaluation.datasets.interactions import DAY_S, Fold


def weights(
    fold: Fold,
    *,
    occasions: float = np.inf,
    positions: float = np.inf,
    days: float = np.inf,
    gap_s: int = 10,
    length: int = 100,
) -> sparse.csr_matrix:
    """(users, items) float32: 1 for a user's newest item, and halved with every so many `occasions`, `positions`, or
    `days`; each item counts where it stands last, and the newest `length` interactions count.

    An occasion is what happened without a pause of more than `gap_s` seconds: an order of 30 lines is one. As
    `shared.behaviour` does it for one user.
    """
    rows, columns, values = [], [], []
    for user in fold.users.tolist():
        own = fold.histories[user]
        newest, times_s = own.items[::-1][:length], own.times_s[::-1][:length]
        ages_s = times_s[0] - times_s
        occasion = np.concatenate([[0], np.cumsum(np.diff(ages_s) > gap_s)])
        items, last = np.unique(newest, return_index=True)
        position = np.argsort(np.argsort(last))
        halvings = occasion[last] / occasions + position / positions + ages_s[last] / DAY_S / days
        rows.append(np.full(len(items), user))
        columns.append(items)
        values.append(0.5**halvings)
    entries = (np.concatenate(values).astype(np.float32), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_matrix(entries, shape=(fold.n_users, fold.n_items))
