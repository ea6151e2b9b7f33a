"""Exports of tiny models."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.trainer.options import ExportOptions
from services.trainer.probe import feeds
from shared.bundles import Floors, Pooling
from shared.inference.backends.onnx import open_session
from shared.inference.tokens import Tokens

LOOSE = Floors(cosine_mean=0.9, cosine_min=0.8, overlap_at_10=0.3, ndcg_drop=0.5)
"""Random weights rank at random; only a trained model can keep its order."""


def options(base: Path, out: Path, **changes: object) -> ExportOptions:
    return replace(ExportOptions(base=str(base), out=out, floors=LOOSE), **changes)  # type: ignore[arg-type]


def vectors_of(graph: Path) -> list[NDArray[np.float32]]:
    """Sentence vectors of `rows`."""
    session = open_session(graph)
    found: list[NDArray[np.float32]] = session.run(["sentence_embedding"], feeds(session, rows()))
    return found


def write_modules(base: Path, pooling: Pooling, normalize: bool) -> None:
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": f"1_{kind}"} for kind in kinds]
    (base / "modules.json").write_text(json.dumps(modules))
    (base / "1_Pooling").mkdir()
    mode = {"pooling_mode_cls_token": pooling is Pooling.CLS, "pooling_mode_mean_tokens": pooling is Pooling.MEAN}
    (base / "1_Pooling" / "config.json").write_text(json.dumps(mode))


def rows() -> list[Tokens]:
    random = np.random.default_rng(0)
    return [Tokens([2, *random.integers(4, 56, size).tolist(), 3]) for size in (1, 30, 4, 60, 12)]
