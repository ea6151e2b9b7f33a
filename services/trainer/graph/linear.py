"""Linear layers of a graph, in fp32 or int8. One choice of this class is one precision of the whole model.

Why int8 is written out here instead of taken from a quantisation tool: see docs/engine.md. In short, the usual
dynamic quantisation has one activation scale a tensor, so a text's vector depends on what else is in its batch
(measured: components move by 3e-2). Here every token has its own scale, so it cannot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.trainer.graph.builder import CONTRIB, GraphBuilder

GELU_MINIMUM = -0.17
"""GELU never falls below -0.16998 (at x = -0.7518): adding 0.17 makes its output fit an unsigned byte."""

STEPS = 127
"""Largest magnitude of a quantised weight, and of two neighbours of one sign together."""

Array = NDArray[np.float32]


class Linear(Protocol):
    """Writes `x @ weight + bias` into a graph."""

    def __call__(
        self, graph: GraphBuilder, x: str, name: str, weight: Array, bias: Array | None, *, after_gelu: bool = False,
        rows: str = "row",
    ) -> str:  # fmt: skip
        """`x`: (rows, k) float32; `weight`: (k, n); `bias`: (n,) or None. Returns the value (rows, n).

        `rows` names how many rows there are: layers of one graph with the same name have as many.
        """


class Fp32Linear:
    """A plain matrix product."""

    def __call__(
        self, graph: GraphBuilder, x: str, name: str, weight: Array, bias: Array | None, *, after_gelu: bool = False,
        rows: str = "row",
    ) -> str:  # fmt: skip
        """See `Linear`."""
        graph.linear_inputs[name] = x
        inputs = [x, graph.constant(f"{name}.weight", weight)]
        if bias is None:
            return graph.node("MatMul", inputs, name)
        return graph.node("Gemm", [*inputs, graph.constant(f"{name}.bias", bias)], name)


@dataclass(frozen=True)
class Int8Linear:
    """Bytes times bytes: activations scaled per token at run time, weights per output channel at export.

    Weights are scaled so that the kernels of every CPU compute the same: see `_column_scales`.
    """

    smoothing: Mapping[str, Array] = field(default_factory=dict)
    """Layer name → (k,) factors that move outlier channels of the activations into the weights
    (SmoothQuant, arXiv:2211.10438): activations are divided by them, weights multiplied."""
    keep: frozenset[str] = frozenset()
    """Layers that stay in fp32."""

    def __call__(
        self, graph: GraphBuilder, x: str, name: str, weight: Array, bias: Array | None, *, after_gelu: bool = False,
        rows: str = "row",
    ) -> str:  # fmt: skip
        """See `Linear`."""
        if name in self.keep:
            return Fp32Linear()(graph, x, name, weight, bias)
        if (factors := self.smoothing.get(name)) is not None:
            x = graph.node("Mul", [x, graph.constant(f"{name}.smooth", 1 / factors)], f"{name}.smoothed")
            weight = weight * factors[:, None]
        scales = _column_scales(weight)
        steps = np.round(weight / scales)
        if after_gelu:
            quantised, scale, zero = _unsigned_per_token(graph, x, name)
            shift = (GELU_MINIMUM * steps.sum(axis=0, dtype=np.float64) * scales).astype(np.float32)
            bias = shift if bias is None else bias + shift
        else:
            quantised, scale, zero = _signed_per_token(graph, x, name, rows)
        inputs = [
            quantised,
            graph.constant(f"{name}.weight", steps.astype(np.int8)),
            graph.scalar(1.0),
            graph.constant(f"{name}.scales", scales),
            zero,
            graph.constant(f"{name}.zeros", np.zeros(scales.shape, np.int8)),
        ]
        product = graph.node("MatMulIntegerToFloat", inputs, f"{name}.product", domain=CONTRIB)
        if bias is None:
            return graph.node("Mul", [product, scale], name)
        scaled = graph.node("Mul", [product, scale], f"{name}.scaled")
        return graph.node("Add", [scaled, graph.constant(f"{name}.bias", bias)], name)


def _column_scales(weight: Array) -> Array:
    """(k, n) → (n,): the value of one step in each column.

    A CPU without VNNI (AVX2) adds the products of two neighbouring rows in 16 bits, saturating silently, so the
    same bundle would give other vectors there. 255 × 128 just fits: two neighbours of one sign may weigh 128
    together. Measured, that costs 0.0001 of cosine; 7-bit weights, the usual way out, 0.0014; and unsigned
    weights take 1.7 times as long where VNNI exists.
    """
    even = np.pad(weight, ((0, len(weight) % 2), (0, 0)))
    pairs = even.reshape(-1, 2, weight.shape[1])
    heaviest = np.maximum(np.maximum(pairs, 0).sum(axis=1), np.maximum(-pairs, 0).sum(axis=1)).max(axis=0)
    scales: Array = np.maximum(heaviest / STEPS, np.finfo(np.float32).tiny).astype(np.float32)
    return scales


def _signed_per_token(graph: GraphBuilder, x: str, name: str, rows: str) -> tuple[str, str, str]:
    """`x` as bytes around 128, the scale of each row (tokens, 1), and the zero point."""
    size = graph.node("Abs", [x], f"{name}.abs")
    scale = _row_scales(graph, size, name, steps=127)
    zero = graph.constant("u8_128", np.array(128, np.uint8))
    # One for all layers that have as many rows.
    zeros = graph.once("Expand", [zero, graph.once("Shape", [scale], f"{rows}_count")], f"u8_128_a_{rows}")
    return _bytes(graph, [x, scale, zeros], name), _column(graph, scale, name), zero


def _unsigned_per_token(graph: GraphBuilder, x: str, name: str) -> tuple[str, str, str]:
    """`x + 0.17`, which GELU makes non-negative, over the full byte: twice the resolution of `_signed_per_token`."""
    shifted = graph.node("Sub", [x, graph.scalar(GELU_MINIMUM)], f"{name}.shifted")
    scale = _row_scales(graph, shifted, name, steps=255)
    zero = graph.constant("u8_0", np.array(0, np.uint8))
    return _bytes(graph, [shifted, scale], name), _column(graph, scale, name), zero


def _row_scales(graph: GraphBuilder, size: str, name: str, *, steps: int) -> str:
    """(tokens, k) → (tokens,): the value of one step in each row."""
    largest = graph.node("ReduceMax", [size, graph.integers(-1)], f"{name}.largest", keepdims=0)
    return graph.node("Mul", [largest, graph.scalar(1 / steps)], f"{name}.scale")


def _bytes(graph: GraphBuilder, inputs: list[str], name: str) -> str:
    """Each row by its own scale, in one pass over the matrix."""
    return graph.node("QuantizeLinear", inputs, f"{name}.bytes", axis=0)


def _column(graph: GraphBuilder, scale: str, name: str) -> str:
    return graph.node("Unsqueeze", [scale, graph.integers(1)], f"{name}.scale_column")
