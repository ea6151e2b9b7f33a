"""The items' vectors, as the item encoder makes them; kept in build/eval."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from services.trainer.parts import Parts
from shared.bundles import Bundle
from shared.inference import Batcher, BiEncoder, Limits, open_backend
from shared.inference.factory import BackendName
from shared.inference.queue import Priority
from tests.evaluation.ranking import Matrix

VECTORS = "vectors"
"""Folder in which every task keeps them."""
_AT_ONCE = 256


def vectors(bundle: Bundle, texts: Sequence[str], kept_in: Path) -> Matrix:
    """One unit row a text; read from `kept_in` where this bundle encoded these texts before."""
    of = ["as served", bundle.version, list(texts)]
    return Parts(kept_in / VECTORS).whole(of, lambda: asyncio.run(_encoded(bundle, texts)))


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
