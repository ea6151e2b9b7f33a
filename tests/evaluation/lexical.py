"""BM25 over a whole catalogue, with the words that `vector_retrieval` gives its store."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from services.vector_retrieval.lexical import index_text, query_text

K1, B = 1.2, 0.75
"""The usual choice."""


class Bm25:
    """Robertson and Zaragoza, "The Probabilistic Relevance Framework" (2009), with Lucene's non-negative idf."""

    def __init__(self, texts: Mapping[str, str], k1: float = K1, b: float = B) -> None:
        self._ids = list(texts)
        counts = [Counter(index_text([text]).split()) for text in texts.values()]
        self._words = {word: at for at, word in enumerate(sorted({word for each in counts for word in each}))}
        lengths = np.array([sum(each.values()) for each in counts], float)
        norm = k1 * (1 - b + b * lengths / lengths.mean())
        rows = [row for row, each in enumerate(counts) for _ in each]
        columns = [self._words[word] for each in counts for word in each]
        tf = np.array([count for each in counts for count in each.values()], float)
        weights = tf * (k1 + 1) / (tf + norm[rows])
        matrix = sparse.csr_array((weights, (rows, columns)), shape=(len(counts), len(self._words)))
        df = np.bincount(columns, minlength=len(self._words))
        idf = np.log(1 + (len(counts) - df + 0.5) / (df + 0.5))
        self._matrix = (matrix @ sparse.diags_array(idf)).tocsc()

    def scores(self, query: str) -> dict[str, float]:
        """Every item with a word of the query, by id."""
        at = [self._words[word] for word in query_text(query).split() if word in self._words]
        if not at:
            return {}
        found = np.asarray(self._matrix[:, at].sum(axis=1)).ravel()
        return {self._ids[row]: float(found[row]) for row in np.flatnonzero(found)}


def best(scores: Mapping[str, float], depth: int) -> dict[str, float]:
    """The `depth` highest, best first; ties by id."""
    order: Sequence[str] = sorted(scores, key=lambda item: (-scores[item], item))[:depth]
    return {item: scores[item] for item in order}
