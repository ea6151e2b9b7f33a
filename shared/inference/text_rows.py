"""A text as late interaction reads it: one matrix, which whoever has run the text can make."""

import numpy as np
from numpy.typing import NDArray

from shared.bundles import Pooling

Floats = NDArray[np.float32]


def text_rows(tokens: Floats, pooling: Pooling) -> Floats:
    """(tokens, hidden) token embeddings → (tokens + 1, hidden): those and their pooled vector, of unit length."""
    pooled = tokens[0] if pooling is Pooling.CLS else tokens.mean(axis=0)
    rows = np.vstack([tokens, pooled])
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Floats = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled
