"""Choosing what to quantise, by measuring: the first candidate that reaches every floor is taken."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from services.trainer.errors import JobError
from services.trainer.graph import Fp32Linear, GraphSpec, Int8Linear, Table, build_graph
from services.trainer.graph.architecture import Weights
from services.trainer.probe import TOP, Answers, Probe, feeds, largest_change_with_batch, spread
from shared.bundles import Floors, Int8Report
from shared.inference.backends.onnx import open_session

Array = NDArray[np.float32]

SMOOTHED = ("qkv", "up")
"""Layers fed by a LayerNorm, whose outlier channels are the largest source of error; others lose by smoothing."""
SMOOTHING = 0.7
"""How much of the activations' range moves into the weights; 0.6 to 0.8 measured alike."""
CALIBRATION_ROWS = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """Which layers stay in fp32; earlier candidates are faster."""

    name: str
    keep: Callable[[int, int, str], bool]
    """(index of the block, number of blocks, short name of the layer) → stays in fp32."""


CANDIDATES = (
    Candidate("all", lambda block, blocks, layer: False),
    Candidate("all-but-last-block", lambda block, blocks, layer: block == blocks - 1),
    Candidate("all-but-attention-inputs", lambda block, blocks, layer: layer == "qkv"),
    Candidate("feed-forward-of-inner-blocks", lambda b, n, layer: b in (0, n - 1) or layer in ("qkv", "out")),
)


def export_int8(
    spec: GraphSpec,
    weights: Weights,
    probe: Probe,
    fp32: onnxruntime.InferenceSession,
    target: Path,
    floors: Floors,
    table: Table,
) -> Int8Report:
    """Write the fastest int8 graph over the floors to `target`, and say how it did; `JobError` if none is."""
    smoothing = _calibrate(spec, weights, probe)
    expected = probe.answers(fp32)
    tried = []
    for candidate in CANDIDATES:
        keep = frozenset(name for name in smoothing.layers if candidate.keep(*_place(name, spec)))
        linear = Int8Linear(smoothing=smoothing.factors, keep=keep)
        model, _ = build_graph(spec, weights, linear, table)
        onnx.save(model, target)
        report = _measure(candidate.name, open_session(target), probe, expected, floors)
        if not (short := shortfalls(report)):
            return report
        tried.append(f"{candidate.name}: {', '.join(short)}")
    target.unlink()
    raise JobError(
        "no int8 graph reaches the bundle's floors; nothing was written. Where the model is of one shop, --validation "
        "with its prepared set checks it there\n  " + "\n  ".join(tried)
    )


def shortfalls(report: Int8Report) -> list[str]:
    """Which floors `report` misses, in words."""
    floors = report.floors
    return [
        f"{name} {value:.4f} {'<' if sign > 0 else '>'} {limit:g}"
        for name, value, limit, sign in (
            ("cosine_mean", report.cosine_mean, floors.cosine_mean, 1),
            ("cosine_min", report.cosine_min, floors.cosine_min, 1),
            ("overlap_at_10", report.overlap_at_10, floors.overlap_at_10, 1),
            ("ndcg_drop", report.ndcg_fp32 - report.ndcg_int8, floors.ndcg_drop, -1),
            ("invariance", report.invariance, floors.invariance, -1),
        )
        if not sign * value >= sign * limit
    ]


def _measure(
    name: str, session: onnxruntime.InferenceSession, probe: Probe, expected: Answers, floors: Floors
) -> Int8Report:
    got = probe.answers(session)
    cosines = _cosines(got.rows, expected.rows)
    return Int8Report(
        variant=name,
        cosine_mean=float(cosines.mean()),
        cosine_min=float(cosines.min()),
        overlap_at_10=_overlap(got, expected),
        ndcg_fp32=expected.ndcg(),
        ndcg_int8=got.ndcg(),
        invariance=largest_change_with_batch(session, probe.inputs, probe.output),
        floors=floors,
    )


def _cosines(a: Array, b: Array) -> Array:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: Array = (a * b).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return cosines


def _overlap(a: Answers, b: Answers) -> float:
    tops = zip(a.ranking()[:, :TOP], b.ranking()[:, :TOP], strict=True)
    return float(np.mean([len(set(x) & set(y)) / len(x) for x, y in tops]))


@dataclass(frozen=True, slots=True)
class _Smoothing:
    layers: Sequence[str]
    factors: dict[str, Array]


def _calibrate(spec: GraphSpec, weights: Weights, probe: Probe) -> _Smoothing:
    """Factors |activation|^a / |weight|^(1 - a) per input channel, over rows from the whole validation set."""
    model, inputs = build_graph(spec, weights, Fp32Linear())
    watched = {name: value for name, value in inputs.items() if name.rsplit(".", 1)[-1] in SMOOTHED}
    for value in watched.values():
        model.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rows = sorted(spread(probe.inputs, CALIBRATION_ROWS), key=len)
    values = list(dict.fromkeys(watched.values()))
    peaks: dict[str, Array] = {}
    for at in range(0, len(rows), 16):
        for value, activation in zip(values, session.run(values, feeds(session, rows[at : at + 16])), strict=True):
            peak = np.abs(activation).max(axis=0)
            peaks[value] = np.maximum(peaks.get(value, peak), peak)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    factors = {}
    for name, value in watched.items():
        weight = np.abs(onnx.numpy_helper.to_array(constants[f"{name}.weight"])).max(axis=1)
        ratio = np.maximum(peaks[value], 1e-6) ** SMOOTHING / np.maximum(weight, 1e-6) ** (1 - SMOOTHING)
        factors[name] = np.clip(ratio, 1e-4, 1e4).astype(np.float32)
    return _Smoothing(tuple(inputs), factors)


def _place(name: str, spec: GraphSpec) -> tuple[int, int, str]:
    block, layer = name.split(".")
    return int(block.removeprefix("layer")), spec.architecture.layers, layer
