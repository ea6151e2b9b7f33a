"""The table of word embeddings: in a small model most of its weights, read a few rows at a time."""

from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from services.trainer.graph.builder import GraphBuilder

STEPS = 127

Array = NDArray[np.float32]


class Table(Protocol):
    """Writes the look-up of rows into a graph."""

    def __call__(self, graph: GraphBuilder, ids: str, name: str, rows: Array) -> str:
        """`ids`: (tokens,) int64; `rows`: (words, hidden). Returns the value (tokens, hidden) float32."""


class Fp32Table:
    """Rows as they are."""

    def __call__(self, graph: GraphBuilder, ids: str, name: str, rows: Array) -> str:
        """See `Table`."""
        return graph.node("Gather", [graph.constant(f"{name}s", rows), ids], name)


class Int8Table:
    """A byte a number and a scale a row, so that a rare word's small numbers keep their digits: a quarter of the size.
    Slower by a cast and a product of (tokens, hidden)."""

    def __call__(self, graph: GraphBuilder, ids: str, name: str, rows: Array) -> str:
        """See `Table`."""
        scales = np.maximum(np.abs(rows).max(axis=1, keepdims=True) / STEPS, np.finfo(np.float32).tiny)
        steps = np.round(rows / scales).astype(np.int8)
        found = graph.node("Gather", [graph.constant(f"{name}s", steps), ids], f"{name}.steps")
        scale = graph.node(
            "Gather", [graph.constant(f"{name}s.scales", scales.astype(np.float32)), ids], f"{name}.scale"
        )
        numbers = graph.node("Cast", [found], f"{name}.numbers", to=onnx.TensorProto.FLOAT)
        return graph.node("Mul", [numbers, scale], name)
