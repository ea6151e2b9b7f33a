"""Vectors on the wire: packed little-endian rows ↔ numpy arrays, without a copy where the type allows it."""

import numpy as np
import numpy.typing as npt
from aisle.common.v1 import embeddings_pb2

from shared.errors import InvalidArgumentError

Vectors = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]

_WIDTHS: dict[int, np.dtype[np.floating]] = {
    embeddings_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
    embeddings_pb2.DTYPE_FLOAT16: np.dtype("<f2"),
}


def pack(rows: Vectors | Halves, model_version: str) -> embeddings_pb2.Embeddings:
    """`rows`, of shape (n, dimensions): float16 as they are, all else as float32."""
    dtype = embeddings_pb2.DTYPE_FLOAT16 if rows.dtype == np.float16 else embeddings_pb2.DTYPE_FLOAT32
    return embeddings_pb2.Embeddings(
        data=np.ascontiguousarray(rows, dtype=_WIDTHS[dtype]).tobytes(),
        dimensions=rows.shape[1],
        dtype=dtype,
        model_version=model_version,
    )


def unpack(pb: embeddings_pb2.Embeddings, field: str = "embeddings") -> Vectors:
    """The rows as a float32 array of shape (n, dimensions); read-only when it shares the message's bytes.

    Raises `InvalidArgumentError` naming what is wrong below `field`: unknown dtype, no dimensions, bytes that are
    no whole number of rows, a component that is NaN or infinite.
    """
    dtype = _WIDTHS.get(pb.dtype)
    if dtype is None:
        raise InvalidArgumentError.of(f"{field}.dtype", "must be DTYPE_FLOAT32 or DTYPE_FLOAT16")
    if pb.dimensions == 0:
        raise InvalidArgumentError.of(f"{field}.dimensions", "must be at least 1")
    if len(pb.data) % (pb.dimensions * dtype.itemsize):
        raise InvalidArgumentError.of(
            f"{field}.data",
            f"{len(pb.data)} bytes are no whole number of rows of {pb.dimensions} × {dtype.itemsize} bytes",
        )
    rows = np.frombuffer(pb.data, dtype=dtype).reshape(-1, pb.dimensions).astype(np.float32, copy=False)
    if not np.isfinite(rows).all():
        row = int(np.argmin(np.isfinite(rows).all(axis=1)))
        raise InvalidArgumentError.of(f"{field}.data", f"row {row} has a component that is NaN or infinite")
    return rows
