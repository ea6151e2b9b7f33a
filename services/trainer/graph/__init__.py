"""ONNX graphs written node by node, for the shape of work a server does: padding-free, fused, few small nodes."""

from services.trainer.graph.architecture import SUPPORTED, Architecture, UnsupportedModelError
from services.trainer.graph.build import GraphSpec, build_graph
from services.trainer.graph.linear import Fp32Linear, Int8Linear, Linear
from services.trainer.graph.table import Fp32Table, Int8Table, Table

__all__ = [
    "SUPPORTED",
    "Architecture",
    "Fp32Linear",
    "Fp32Table",
    "GraphSpec",
    "Int8Linear",
    "Int8Table",
    "Linear",
    "Table",
    "UnsupportedModelError",
    "build_graph",
]
