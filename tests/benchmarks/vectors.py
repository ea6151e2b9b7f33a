"""Vectors of items and queries by the bundle's int8 graph: made once, kept under build/bench by bundle and texts."""

import asyncio
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shared.inference.tokens import TextTokenizer
from shared.items import Item
from tests.benchmarks.bench import Bench, forward
from tests.benchmarks.figures import OUT

Vectors = npt.NDArray[np.float32]

NOISE = 0.5
"""Length of the noise in an enlarged vector, of the real one's: their cosine is about 0.89, as of two variants of one
product."""

_EQUAL = 1e-5
"""Cosines closer than this are equal: the store rounds to float32."""
_BATCH = 16
_CHUNK = 256


async def of_items(bench: Bench, items: Sequence[Item]) -> Vectors:
    """A row an item."""
    return await asyncio.to_thread(_of, bench, bench.items, [bench.bundle.item_text(item) for item in items])


async def of_queries(bench: Bench, queries: Sequence[str]) -> Vectors:
    """A row a query."""
    return await asyncio.to_thread(_of, bench, bench.queries, list(queries))


def enlarged(real: Vectors, count: int) -> Vectors:
    """`count` unit vectors: the real ones, then again and again each of them with fresh Gaussian noise added."""
    draw = np.random.default_rng(7)
    rows = real[np.arange(count) % len(real)].copy()
    width = rows.shape[1]
    # In parts: twice the memory of the vectors would be a burden at a million of them.
    for at in range(len(real), count, 50_000):
        part = rows[at : at + 50_000]
        part += draw.standard_normal(part.shape, dtype=np.float32) * np.float32(NOISE / np.sqrt(width))
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def nearest(rows: Vectors, asked: Vectors, count: int) -> npt.NDArray[np.intp]:
    """For each of `asked` the positions of the `count` nearest `rows` by cosine, nearest first: the exact answer."""
    found = np.empty((len(asked), min(count, len(rows))), dtype=np.intp)
    for at in range(0, len(asked), 100):
        scores = asked[at : at + 100] @ rows.T
        best = np.argpartition(-scores, found.shape[1] - 1, axis=1)[:, : found.shape[1]]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        found[at : at + 100] = np.take_along_axis(best, order, axis=1)
    return found


def recall(rows: Vectors, asked: Vectors, found: Sequence[Sequence[int]], count: int) -> float:
    """Mean share of the `count` nearest `rows` (of all, where there are fewer) that was found, by position.

    As near as the last of them is near enough: items of one title have one vector, and no order among them.
    """
    exact = nearest(rows, asked, count)
    shares = []
    for query, best, positions in zip(asked, exact, found, strict=True):
        scores = rows[np.array(positions[:count], dtype=np.intp)] @ query
        shares.append(np.count_nonzero(scores >= rows[best[-1]] @ query - _EQUAL) / len(best))
    return float(np.mean(shares))


def _of(bench: Bench, tokenizer: TextTokenizer, texts: list[str]) -> Vectors:
    digest = hashlib.sha256("\x1e".join(texts).encode()).hexdigest()[:12]
    path = OUT / "vectors" / f"{bench.bundle.version}-{digest}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under another name until it is whole.
        part = path.with_suffix(".part.npy")
        np.save(part, _encoded(bench, tokenizer, texts))
        part.replace(path)
    rows: Vectors = np.load(path)
    return rows


def _encoded(bench: Bench, tokenizer: TextTokenizer, texts: list[str]) -> Vectors:
    backend = bench.backend()
    rows = [tokenizer.encode(text) for text in texts]
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    made: list[Vectors] = []
    for at in range(0, len(order), _CHUNK):
        made += forward(backend, [rows[row] for row in order[at : at + _CHUNK]], _BATCH)
    stacked = np.empty((len(rows), len(made[0])), dtype=np.float32)
    stacked[order] = np.stack(made)
    return stacked
