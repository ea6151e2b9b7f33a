"""Texts → unit vectors, with a bundle as it is served or with a model folder as it was trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.trainer.base import open_base
from services.trainer.probe import run_all
from shared.bundles import BundleKind, ChannelName, ItemLike, Precision, Tower, load_bundle, render, resolve
from shared.bundles.files import MANIFEST_NAME
from shared.inference.backends.onnx import open_session
from shared.inference.tokens import TextTokenizer

Vectors = NDArray[np.float32]
_QUERIES_AT_A_TIME = 128
"""Over a million items: half a gigabyte of cosines."""


class Named(Protocol):
    """A model under evaluation."""

    name: str
    """For people."""
    version: str
    """Of a bundle; empty for a model folder."""
    digest: str
    """Of all that its numbers depend on, besides what it is given to read."""


class Encoder(Named, Protocol):
    """A bi-encoder under evaluation."""

    def item_text(self, item: ItemLike) -> str:
        """What the model reads of an item, without its prompt."""

    def queries(self, texts: Sequence[str]) -> Vectors:
        """(texts, dimensions), rows of unit length."""

    def items(self, texts: Sequence[str]) -> Vectors:
        """(texts, dimensions), rows of unit length."""


def open_encoder(name: str, precision: Precision) -> Encoder:
    """`name`: a bundle (`registry:PATH#live` too), a model folder, or `minilm`. `precision` chooses the graph of a
    bundle.

    Raises `JobError` or `BundleError` when there is no such model.
    """
    if (path := bundle_path(name)) is not None:
        return BundleEncoder(path, precision)
    return FolderEncoder(name)


def bundle_path(name: str) -> Path | None:
    """Where the bundle called `name` lies; `None` where it is no bundle."""
    path = resolve(name) if ChannelName.parse(name) else Path(name).expanduser()
    return path if (path / MANIFEST_NAME).is_file() else None


class BundleEncoder:
    """Through the ONNX graph and the tokenizer that the services use."""

    def __init__(self, path: Path, precision: Precision) -> None:
        self._bundle = load_bundle(path, kind=BundleKind.BI_ENCODER)
        manifest = self._bundle.manifest
        self.name = f"{manifest.name} {manifest.version} ({precision})"
        self.version = manifest.version
        self.digest = f"{manifest.version} {precision}"
        tokenizer = self._bundle.tokenizer_path
        self._sessions = {tower: open_session(self._bundle.onnx_path(precision, tower)) for tower in Tower}
        self._queries = TextTokenizer(tokenizer, manifest.max_query_tokens, manifest.prompts.query)
        self._items = TextTokenizer(tokenizer, manifest.max_item_tokens, manifest.prompts.item)

    def item_text(self, item: ItemLike) -> str:
        """See `Encoder`."""
        return self._bundle.item_text(item)

    def queries(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder`."""
        return self._run(self._queries, texts, Tower.QUERY)

    def items(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder`."""
        return self._run(self._items, texts, Tower.ITEM)

    def _run(self, tokenizer: TextTokenizer, texts: Sequence[str], tower: Tower) -> Vectors:
        rows = [tokenizer.encode(text) for text in texts]
        return _unit(run_all(self._sessions[tower], rows, "sentence_embedding"))


class FolderEncoder:
    """Through torch, in fp32: a model that is not exported yet."""

    def __init__(self, name: str) -> None:
        # sentence-transformers takes seconds to import, and a bundle does without it.
        from services.trainer.finetune.model import load

        base = open_base(name)
        self.name = f"{base.name} (torch)"
        self.version = ""
        self.digest = f"{base.content_hash} torch"
        self._template = base.item_template
        self._prompts = base.prompts
        self._model = load(base, base.max_tokens)

    def item_text(self, item: ItemLike) -> str:
        """See `Encoder`."""
        return render(self._template, item)

    def queries(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder`."""
        return self._run(self._prompts.query, texts, Tower.QUERY)

    def items(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder`."""
        return self._run(self._prompts.item, texts, Tower.ITEM)

    def _run(self, prompt: str, texts: Sequence[str], tower: Tower) -> Vectors:
        from services.trainer.finetune.model import encode

        return encode(self._model, [prompt + text for text in texts], tower)


def scored(encoder: Encoder, queries: Sequence[str], items: Vectors) -> Iterator[Vectors]:
    """A row a query: its cosine to each of `items` (items, dimensions). Some queries at a time, for the rows of all
    would not fit in memory over a large catalogue."""
    for start in range(0, len(queries), _QUERIES_AT_A_TIME):
        yield from encoder.queries(queries[start : start + _QUERIES_AT_A_TIME]) @ items.T


def highest(row: Vectors, depth: int) -> list[int]:
    """Places of the `depth` highest of `row`, the highest first; equal ones stay in the order of the row."""
    count = min(depth, len(row))
    top = np.sort(np.argpartition(-row, count - 1)[:count])
    order: list[int] = top[np.argsort(-row[top], kind="stable")].tolist()
    return order


def _unit(rows: Vectors) -> Vectors:
    unit: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
