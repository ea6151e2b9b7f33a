"""From a batch's output array to one array a row, the same for every library."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.errors import InternalError
from shared.inference.backend import Output
from shared.inference.tokens import PaddedBatch


def split_rows(
    output: Output, prepared: PaddedBatch, raw: NDArray[np.float32]
) -> Sequence[NDArray[np.float32] | Exception]:
    """`raw`: (rows, …). A row with a NaN or infinity in it becomes an `InternalError`: it would poison an index."""
    rows: list[NDArray[np.float32]] = list(raw)
    if output is Output.TOKENS:
        rows = [row[:length] for row, length in zip(rows, prepared.lengths, strict=True)]
    if np.isfinite(raw).all():
        return rows
    return [
        row if np.isfinite(row).all() else InternalError("the model gave a number that is not finite for this text")
        for row in rows
    ]
