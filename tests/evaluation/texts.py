"""The items' vectors, as the item encoder makes them; kept in build/eval."""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.bundles import Bundle
from shared.inference import Batcher, BiEncoder, Limits, open_backend
from shared.inference.factory import BackendName
from shared.inference.queue import Priority
from tests.evaluation.ranking import Matrix

_AT_ONCE = 256


def vectors(bundle: Bundle, texts: Sequence[str], kept_in: Path) -> Matrix:
    """One unit row a text; read from `kept_in` where this bundle encoded these texts before."""
    digest = hashlib.sha256("\0".join([bundle.version, *texts]).encode()).hexdigest()[:16]
    path = kept_in / f"vectors-{digest}.npy"
    if path.is_file():
        return np.load(path)
    rows = asyncio.run(_encoded(bundle, texts))
    kept_in.mkdir(parents=True, exist_ok=True)
    np.save(path, rows)
    return rows


async def _encoded(bundle: Bundle, texts: Sequence[str]) -> Matrix:
    batcher: Batcher[Any, Any] = Batcher(open_backend(BackendName.ONNX_INT8, bundle), Limits())
    encoder = BiEncoder(bundle, batcher)
    await batcher.start()
    try:
        parts = [
            (await encoder.encode_items(texts[at : at + _AT_ONCE], priority=Priority.BULK)).vectors
            for at in range(0, len(texts), _AT_ONCE)
        ]
    finally:
        await batcher.close()
    return np.concatenate(parts)
