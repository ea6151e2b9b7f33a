"""From a batch's output arrays to one result a row, the same for every library."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.errors import InternalError
from shared.inference.backend import Output, SentenceAndTokens
from shared.inference.tokens import PaddedBatch

Array = NDArray[np.float32]
Result = Array | SentenceAndTokens | Exception


def split_rows(output: Output, prepared: PaddedBatch, raw: Array, tokens: Array | None = None) -> Sequence[Result]:
    """`raw`: (rows, …). `tokens`: (rows, longest, hidden), for the rows that ask for their token vectors too.

    A row with a NaN or infinity in it becomes an `InternalError`: it would poison an index.
    """
    rows = _finite(list(raw), raw) if output is not Output.TOKENS else _tokens(prepared, raw)
    if tokens is None:
        return rows
    return [
        _pair(row, of_tokens) if asked else row
        for row, of_tokens, asked in zip(rows, _tokens(prepared, tokens), prepared.token_vectors, strict=True)
    ]


def _tokens(prepared: PaddedBatch, raw: Array) -> Sequence[Array | Exception]:
    return _finite([row[:length] for row, length in zip(raw, prepared.lengths, strict=True)], raw)


def _finite(rows: Sequence[Array], raw: Array) -> Sequence[Array | Exception]:
    if np.isfinite(raw).all():
        return rows
    return [
        row if np.isfinite(row).all() else InternalError("the model gave a number that is not finite for this text")
        for row in rows
    ]


def _pair(sentence: Array | Exception, tokens: Array | Exception) -> Result:
    if isinstance(sentence, Exception):
        return sentence
    return tokens if isinstance(tokens, Exception) else SentenceAndTokens(sentence, tokens)
