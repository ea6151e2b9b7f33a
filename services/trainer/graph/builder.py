"""A few lines over `onnx.helper`, so that graph code reads as the computation it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 9
"""Old enough for every ONNX Runtime since 1.16."""
CONTRIB = "com.microsoft"
"""Domain of ONNX Runtime's own operators (fused attention, bias + GELU, integer matmul)."""


class GraphBuilder:
    """Collects nodes and constants in order. Values are their names; a constant given twice is stored once."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self.linear_inputs: dict[str, str] = {}
        """Name of each linear layer → name of the value it multiplies; what calibration listens to."""

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """A tensor stored in the graph. Giving a name a second time must mean the same value."""
        if name not in self._constants:
            # Not ascontiguousarray, which would turn a scalar into a vector of one.
            self._constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def integers(self, *values: int) -> str:
        """A 1-d int64 constant: axes, shapes."""
        return self.constant(f"i64_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """A float32 constant of rank 0."""
        return self.constant(f"f32_{value!r}", np.array(value, np.float32))

    def node(self, op: str, inputs: Sequence[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        """One node with one output; returns the output's name."""
        self.nodes(op, inputs, [output], domain=domain, **attributes)
        return output

    def once(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """`node`, unless the value is there already. Giving a name a second time must mean the same value."""
        if all(output not in node.output for node in self._nodes):
            self.node(op, inputs, output, **attributes)
        return output

    def nodes(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = "", **attributes: Any
    ) -> Sequence[str]:
        """One node with several outputs."""
        self._nodes.append(
            helper.make_node(op, inputs, outputs, name=f"{outputs[0]}/{op}", domain=domain, **attributes)
        )
        return outputs

    def model(self, name: str, inputs: Sequence[str], outputs: Mapping[str, Sequence[str | int]]) -> onnx.ModelProto:
        """The checked model: int64 inputs of shape (batch, tokens), float32 outputs of the shapes given."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(i, TensorProto.INT64, ["batch", "tokens"]) for i in inputs],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, list(s)) for o, s in outputs.items()],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="aisle")
