"""The methods that everybody knows, on the same folds."""

from typing import Any

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from tests.evaluation.datasets.interactions import DAY_S, Fold
from tests.evaluation.ranking import Matrix, Scorer


def popularity(fold: Fold, *, days: float) -> Scorer:
    """The same for everybody: how many took each item in the last `days` of the history."""
    latest = fold.history.times_s >= fold.history.times_s[-1] - days * DAY_S
    pairs = np.unique(np.stack([fold.history.users[latest], fold.history.items[latest]]), axis=1)
    takers = np.bincount(pairs[1], minlength=fold.n_items).astype(np.float32)
    return lambda users: np.broadcast_to(takers, (len(users), fold.n_items))


def item_knn(fold: Fold, *, neighbours: int, shrinkage: float, weighting: str) -> Scorer:
    """Items like those a user took, by who took both: shrunk cosine (Sarwar et al. 2001; Bell and Koren 2007) over
    columns that are plain, or weighted by `tfidf` or `bm25`, with each item's best `neighbours`."""
    taken = fold.taken
    weighted = _WEIGHTINGS[weighting](taken)
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=0)).ravel())
    together = np.asarray((weighted.T @ weighted).todense(), dtype=np.float32)
    likeness = together / (np.outer(norms, norms) + shrinkage + 1e-9)
    np.fill_diagonal(likeness, 0.0)
    return _linear(taken, keep_best(likeness, neighbours))


def ease(fold: Fold, *, regularization: float) -> Scorer:
    """EASE^R (Steck 2019): the linear model of items from items, in closed form."""
    return _linear(fold.taken, ease_weights(fold.taken, regularization))


def ease_weights(taken: sparse.csr_matrix, regularization: float) -> Matrix:
    """(items, items): what each row's item says for each column's."""
    gram = np.asarray((taken.T @ taken).todense(), dtype=np.float64)
    gram[np.diag_indices_from(gram)] += regularization
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights.astype(np.float32)


def als(fold: Fold, *, factors: int, regularization: float, alpha: float, iterations: int, seed: int) -> Scorer:
    """Matrix factorisation of implicit feedback (Hu, Koren and Volinsky 2008), by `implicit`."""
    from implicit.cpu.als import AlternatingLeastSquares

    # It has threads of its own, and asks that BLAS have none.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors, regularization, alpha, iterations=iterations, random_state=seed)
        return _factors(fold, model)


def bpr(fold: Fold, *, factors: int, learning_rate: float, regularization: float, iterations: int, seed: int) -> Scorer:
    """Bayesian personalised ranking (Rendle et al. 2009), by `implicit`."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(
        factors, learning_rate, regularization, iterations=iterations, random_state=seed, num_threads=1
    )
    return _factors(fold, model)


def keep_best(matrix: Matrix, count: int) -> Matrix:
    """`matrix` with all but the `count` largest of each row at 0."""
    if count >= matrix.shape[1]:
        return matrix
    kept = np.zeros_like(matrix)
    best = np.argpartition(-matrix, count, axis=1)[:, :count]
    np.put_along_axis(kept, best, np.take_along_axis(matrix, best, axis=1), axis=1)
    return kept


def _linear(taken: sparse.csr_matrix, weights: Matrix) -> Scorer:
    return lambda users: np.asarray(taken[users] @ weights)


def _factors(fold: Fold, model: Any) -> Scorer:
    model.fit(fold.taken, show_progress=False)
    users, items = model.user_factors, model.item_factors
    return lambda chosen: users[chosen] @ items.T


def _plain(taken: sparse.csr_matrix) -> sparse.csr_matrix:
    return taken


def _tfidf(taken: sparse.csr_matrix) -> sparse.csr_matrix:
    """Users who take everything say less."""
    took = np.asarray(taken.sum(axis=1)).ravel()
    return sparse.diags_array(np.log((taken.shape[1] + 1) / (took + 1)).astype(np.float32)) @ taken


def _bm25(taken: sparse.csr_matrix, k1: float = 1.2, b: float = 0.75) -> sparse.csr_matrix:
    """As `_tfidf`, and more so for users who took more than the mean."""
    took = np.asarray(taken.sum(axis=1)).ravel()
    length = (k1 + 1) / (1 + k1 * (1 - b + b * took / max(took.mean(), 1.0)))
    return sparse.diags_array(length.astype(np.float32)) @ _tfidf(taken)


_WEIGHTINGS = {"plain": _plain, "tfidf": _tfidf, "bm25": _bm25}
WEIGHTINGS = tuple(_WEIGHTINGS)
