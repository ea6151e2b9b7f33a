"""The BERT family as one ONNX graph, padding-free inside and ordinary outside.

Inputs are the usual padded `input_ids` and `attention_mask`, (batch, tokens). Inside, the real tokens of the
whole batch are packed into one (total tokens, hidden) matrix, so no linear layer, norm or GELU ever runs on
padding; only attention sees the padded shape. Measured on a batch of 16 queries and 16 items this halves the
time. The node count is about a third of a traced export's, which is what a single short query feels.
"""

from dataclasses import dataclass

import numpy as np
import onnx

from services.trainer.graph.architecture import Architecture, Weights
from services.trainer.graph.builder import CONTRIB, GraphBuilder
from services.trainer.graph.linear import Linear
from services.trainer.graph.table import Fp32Table, Table
from shared.bundles import BundleKind, Pooling


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """What to build: a bi-encoder's or a cross-encoder's graph."""

    architecture: Architecture
    kind: BundleKind
    pooling: Pooling = Pooling.MEAN
    normalize: bool = True
    labels: int = 1
    dimensions: int = 0
    """Leading components that a bi-encoder's vectors have, 1 to the hidden size; 0: all."""

    @property
    def length(self) -> int:
        """Components of a bi-encoder's vectors."""
        return self.dimensions or self.architecture.hidden


@dataclass(frozen=True, slots=True)
class _Packing:
    """Names of the index vectors between the padded and the packed layout."""

    ids: str
    positions: str
    types: str | None
    pack: str
    """(total tokens,): where each real token stands in the flattened batch."""
    restore: str
    """(batch, tokens): which packed row to read at each place; padding reads some real row, masked later."""


class _Encoder:
    def __init__(self, spec: GraphSpec, weights: Weights, linear: Linear, table: Table) -> None:
        self.graph = GraphBuilder()
        self.spec = spec
        self.model = spec.architecture
        self.weights = weights
        self.linear = linear
        self.table = table

    def weight(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return self.weights[self.model.prefix + name].astype(np.float32)

    @property
    def has_types(self) -> bool:
        """Whether the two sides of a pair are told apart by type ids (BERT: yes, RoBERTa: no)."""
        table = self.weights[f"{self.model.prefix}embeddings.token_type_embeddings.weight"]
        return self.spec.kind is BundleKind.CROSS_ENCODER and len(table) > 1

    def pack(self) -> _Packing:
        graph = self.graph
        flat = graph.integers(-1)
        graph.node("Cast", ["attention_mask"], "mask_i32", to=onnx.TensorProto.INT32)
        graph.node("Reshape", ["attention_mask", flat], "mask_flat")
        graph.node("NonZero", ["mask_flat"], "nonzero")
        pack = graph.node("Reshape", ["nonzero", flat], "pack")
        graph.node("CumSum", ["attention_mask", graph.constant("axis_1", np.array(1, np.int64))], "counted")
        first = graph.constant("first_position", np.array(1 - self.model.position_offset, np.int64))
        graph.node("Sub", ["counted", first], "positions_padded")
        graph.node("CumSum", ["mask_flat", graph.constant("axis_0", np.array(0, np.int64))], "counted_flat")
        graph.node("Sub", ["counted_flat", graph.constant("one", np.array(1, np.int64))], "restore_flat")
        shape = graph.node("Shape", ["input_ids"], "shape")
        restore = graph.node("Reshape", ["restore_flat", shape], "restore")

        def packed(value: str, name: str) -> str:
            return graph.node("Gather", [graph.node("Reshape", [value, flat], f"{name}_flat"), pack], name)

        return _Packing(
            ids=packed("input_ids", "ids"),
            positions=packed("positions_padded", "positions"),
            types=packed("token_type_ids", "types") if self.has_types else None,
            pack=pack,
            restore=restore,
        )

    def norm(self, a: str, b: str, layer: str, name: str) -> str:
        """LayerNorm(a + b). Two plain nodes: ONNX Runtime's fused SkipLayerNormalization is slower on CPU."""
        graph = self.graph
        total = graph.node("Add", [a, b], f"{name}.sum")
        scale = graph.constant(f"{layer}.scale", self.weight(f"{layer}.weight"))
        bias = graph.constant(f"{layer}.bias", self.weight(f"{layer}.bias"))
        return graph.node("LayerNormalization", [total, scale, bias], name, axis=-1, epsilon=self.model.epsilon)

    def embed(self, packing: _Packing) -> str:
        graph = self.graph
        types = self.weight("embeddings.token_type_embeddings.weight")
        positions = self.weight("embeddings.position_embeddings.weight")
        if packing.types is None:
            positions = positions + types[0]  # a text alone is all of type 0
        word = self.table(graph, packing.ids, "word", self.weight("embeddings.word_embeddings.weight"))
        place = graph.node("Gather", [graph.constant("places", positions), packing.positions], "place")
        if packing.types is not None:
            side = graph.node("Gather", [graph.constant("sides", types), packing.types], "side")
            place = graph.node("Add", [place, side], "place_side")
        return self.norm(word, place, "embeddings.LayerNorm", "embedded")

    def attention(self, x: str, packing: _Packing, layer: str, name: str) -> str:
        """x: packed (total, hidden) → attended, padded (batch, tokens, hidden)."""
        graph = self.graph
        names = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self.weight(f"{part}.weight").T for part in names], axis=1)
        bias = np.concatenate([self.weight(f"{part}.bias") for part in names])
        qkv = self.linear(graph, x, f"{name}.qkv", weight, bias)
        padded = graph.node("Gather", [qkv, packing.restore], f"{name}.qkv_padded")
        query, key, value = graph.nodes("Split", [padded], [f"{name}.{part}" for part in "qkv"], axis=2, num_outputs=3)
        return graph.node(
            "MultiHeadAttention",
            [query, key, value, "", "mask_i32"],
            f"{name}.attended",
            domain=CONTRIB,
            num_heads=self.model.heads,
        )

    def all_tokens(self, attended: str, packing: _Packing) -> str:
        """Padded → packed."""
        flat = self.graph.node("Reshape", [attended, self.graph.integers(-1, self.model.hidden)], f"{attended}_flat")
        return self.graph.node("Gather", [flat, packing.pack], f"{attended}_packed")

    def first_tokens(self, x: str, attended: str, packing: _Packing) -> tuple[str, str]:
        """Of `x`, packed, and `attended`, padded: each text's first token, (batch, hidden)."""
        first = self.graph.constant("first", np.array(0, np.int64))
        starts = self.graph.node("Gather", [packing.restore, first], "starts", axis=1)
        return (
            self.graph.node("Gather", [x, starts], "first_tokens"),
            self.graph.node("Gather", [attended, first], "first_attended", axis=1),
        )

    def layer(self, x: str, packing: _Packing, index: int, *, to_head: bool = False) -> str:
        """x: packed → packed; or, `to_head`, to each text's first token, which is all that a head reads: attention sees
        every token, and what comes after it, three quarters of a layer's work, that one alone."""
        graph, layer, name = self.graph, f"encoder.layer.{index}", f"layer{index}"
        rows = "text" if to_head else "row"

        def dense(x: str, part: str, short: str, *, biased: bool = True, after_gelu: bool = False) -> str:
            weight = self.weight(f"{layer}.{part}.weight").T
            bias = self.weight(f"{layer}.{part}.bias") if biased else None
            return self.linear(graph, x, f"{name}.{short}", weight, bias, after_gelu=after_gelu, rows=rows)

        attended = self.attention(x, packing, layer, name)
        if to_head:
            x, attended = self.first_tokens(x, attended, packing)
        else:
            attended = self.all_tokens(attended, packing)
        projected = dense(attended, "attention.output.dense", "out")
        middle = self.norm(projected, x, f"{layer}.attention.output.LayerNorm", f"{name}.middle")
        wide = dense(middle, "intermediate.dense", "up", biased=False)
        bias = graph.constant(f"{name}.up.gelu_bias", self.weight(f"{layer}.intermediate.dense.bias"))
        active = graph.node("BiasGelu", [wide, bias], f"{name}.gelu", domain=CONTRIB)
        narrow = dense(active, "output.dense", "down", after_gelu=True)
        return self.norm(narrow, middle, f"{layer}.output.LayerNorm", f"{name}.output")


def build_graph(
    spec: GraphSpec, weights: Weights, linear: Linear, table: Table | None = None
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The model, and for calibration the name of each linear layer's input value."""
    encoder = _Encoder(spec, weights, linear, table or Fp32Table())
    packing = encoder.pack()
    x = encoder.embed(packing)
    last = spec.architecture.layers - 1
    cross = spec.kind is BundleKind.CROSS_ENCODER
    for index in range(last + 1):
        x = encoder.layer(x, packing, index, to_head=cross and index == last)
    head = _classify if cross else _pool
    return head(encoder, x, packing), encoder.graph.linear_inputs


def _pool(encoder: _Encoder, x: str, packing: _Packing) -> onnx.ModelProto:
    graph, spec = encoder.graph, encoder.spec
    if spec.length < spec.architecture.hidden:
        first, end, axis = (graph.integers(value) for value in (0, spec.length, 1))
        x = graph.node("Slice", [x, first, end, axis], "leading")
    padded = graph.node("Gather", [x, packing.restore], "tokens_padded")
    graph.node("Cast", ["attention_mask"], "mask_f32", to=onnx.TensorProto.FLOAT)
    mask = graph.node("Unsqueeze", ["mask_f32", graph.integers(2)], "mask_3d")
    tokens = graph.node("Mul", [padded, mask], "token_embeddings")
    final = "pooled" if spec.normalize else "sentence_embedding"
    if spec.pooling is Pooling.CLS:
        graph.node("Gather", [tokens, graph.constant("first", np.array(0, np.int64))], final, axis=1)
    else:
        graph.node("ReduceSum", [tokens, graph.integers(1)], "token_sum", keepdims=0)
        graph.node("ReduceSum", ["mask_f32", graph.integers(1)], "token_count", keepdims=1)
        graph.node("Div", ["token_sum", "token_count"], final)
    if spec.normalize:
        graph.node("LpNormalization", [final], "sentence_embedding", axis=-1, p=2)
    outputs: dict[str, list[str | int]] = {
        "token_embeddings": ["batch", "tokens", spec.length],
        "sentence_embedding": ["batch", spec.length],
    }
    return graph.model(spec.architecture.model_type, ["input_ids", "attention_mask"], outputs)


def _classify(encoder: _Encoder, x: str, packing: _Packing) -> onnx.ModelProto:
    """The head of `…ForSequenceClassification`: dense, tanh and a projection of the first token, all in fp32."""
    graph, spec, weights = encoder.graph, encoder.spec, encoder.weights
    for layer, name in ((spec.architecture.head, "head"), (spec.architecture.projection, "logits")):
        weight = graph.constant(f"{name}.weight", weights[f"{layer}.weight"].T.astype(np.float32))
        bias = graph.constant(f"{name}.bias", weights[f"{layer}.bias"].astype(np.float32))
        x = graph.node("Gemm", [x, weight, bias], name)
        if name == "head":
            x = graph.node("Tanh", [x], "head_tanh")
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if packing.types else [])]
    return graph.model(spec.architecture.model_type, inputs, {"logits": ["batch", spec.labels]})
