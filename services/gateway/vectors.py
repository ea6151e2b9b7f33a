"""Arithmetic on vectors as they travel."""

import numpy as np
import numpy.typing as npt

from services.gateway.ports import Vectors
from shared.errors import InternalError

Matrix = npt.NDArray[np.float32]

_DTYPES = {1: "<f4", 2: "<f2"}
"""By the wire's numbers (`aisle.common.v1.Dtype`)."""


def matrix(vectors: Vectors) -> Matrix:
    """(rows, dimensions), each row of length 1; a row of zeros stays one."""
    dtype = _DTYPES.get(vectors.dtype)
    if dtype is None:
        raise InternalError(f"a dependency sent vectors of unknown type {vectors.dtype}")
    rows = np.frombuffer(vectors.data, dtype).reshape(vectors.rows, vectors.dimensions).astype(np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def mean(vectors: Vectors) -> Vectors:
    """One row that points where `vectors` point together."""
    row = matrix(vectors).mean(axis=0)
    return Vectors(row.astype("<f4").tobytes(), 1, vectors.dimensions, 1, vectors.model_version)


def cosines(rows: Matrix, vector: Vectors) -> list[float]:
    """The cosine similarity of each of `rows` to the one row of `vector`, -1 to 1."""
    return [float(value) for value in rows @ matrix(vector)[0]]
