"""A cross-encoder under evaluation: what it makes of the first items that a bi-encoder finds."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.trainer.base import open_base
from services.trainer.evaluate.encode import Named, bundle_path
from services.trainer.evaluate.measures import Run
from services.trainer.evaluate.score import Data, Scored, Split, summarise
from services.trainer.probe import run_all
from shared.bundles import Bundle, BundleKind, ItemLike, Precision, load_bundle, render
from shared.inference.backends.onnx import open_session
from shared.inference.cross_encoder import probability
from shared.inference.tokens import TextTokenizer

RERANKED = 50
"""Items that are put in order: as many as the gateway gives to a re-ranker."""

Pair = tuple[str, str]
"""A query, and the text of an item."""
Logits = NDArray[np.float32]


class Reranker(Named, Protocol):
    """A cross-encoder under evaluation."""

    def item_text(self, item: ItemLike) -> str:
        """What the model reads of an item."""

    def logits(self, pairs: Sequence[Pair]) -> Logits:
        """(pairs, labels)."""


def open_reranker(name: str, precision: Precision) -> Reranker | None:
    """`name`: a bundle (`registry:PATH#live` too) or a model folder; `None` where that is no cross-encoder.

    `precision` chooses the graph of a bundle. Raises `JobError` or `BundleError` when there is no such model.
    """
    if (path := bundle_path(name)) is not None:
        bundle = load_bundle(path)
        return BundleReranker(bundle, precision) if bundle.manifest.kind is BundleKind.CROSS_ENCODER else None
    architectures = open_base(name).config.get("architectures") or []
    return FolderReranker(name) if any("SequenceClassification" in each for each in architectures) else None


class BundleReranker:
    """Through the ONNX graph and the tokenizer that the service uses."""

    def __init__(self, bundle: Bundle, precision: Precision) -> None:
        self._bundle = bundle
        manifest = self._bundle.manifest
        self.name = f"{manifest.name} {manifest.version} ({precision})"
        self.version = manifest.version
        self.digest = f"{manifest.version} {precision}"
        self._session = open_session(self._bundle.onnx_path(precision))
        tokenizer = self._bundle.tokenizer_path
        self._queries = TextTokenizer(tokenizer, manifest.max_query_tokens, manifest.prompts.query)
        self._pairs = TextTokenizer(tokenizer, manifest.max_item_tokens)

    def item_text(self, item: ItemLike) -> str:
        """See `Reranker`."""
        return self._bundle.item_text(item)

    def logits(self, pairs: Sequence[Pair]) -> Logits:
        """See `Reranker`."""
        starts = {query: self._queries.start(query) for query in {query for query, _ in pairs}}
        return run_all(self._session, [self._pairs.pair(starts[query], text) for query, text in pairs], "logits")


class FolderReranker:
    """Through torch, in fp32: a model that is not exported yet."""

    def __init__(self, name: str) -> None:
        # sentence-transformers takes seconds to import, and a bundle does without it.
        from services.trainer.rerank.model import load

        base = open_base(name)
        self.name = f"{base.name} (torch)"
        self.version = ""
        self.digest = f"{base.content_hash} torch"
        self._template = base.item_template
        self._prompt = base.prompts.query
        self._model = load(base, base.max_tokens)

    def item_text(self, item: ItemLike) -> str:
        """See `Reranker`."""
        return render(self._template, item)

    def logits(self, pairs: Sequence[Pair]) -> Logits:
        """See `Reranker`."""
        from services.trainer.rerank.model import logits

        return logits(self._model, [(self._prompt + query, text) for query, text in pairs])


def score_reranked(reranker: Reranker, first: Run, data: Data) -> Scored:
    """Its order of the first `RERANKED` items of each query of `first`, the others behind them as they were; and its
    scores of the judged items. Minutes on a CPU."""
    texts = {item.id: reranker.item_text(item) for item in data.items}
    heads = {key: list(found)[:RERANKED] for key, found in first.items()}
    pairs = _scores(reranker, data.split, data.split.qrels, texts)
    tuning = pairs if data.tuning is data.split else _scores(reranker, data.tuning, data.tuning.qrels, texts)
    ordered = _scores(reranker, data.split, heads, texts)
    run = {key: {**_best_first(ordered[key]), **_behind(list(found)[RERANKED:])} for key, found in first.items()}
    return summarise(reranker, data, run, pairs, tuning)


def _scores(
    reranker: Reranker, split: Split, items: Mapping[str, Collection[str]], texts: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """The probability that each of `items`, by query key, is relevant."""
    rows = [(key, item) for key, each in items.items() for item in each]
    logits = reranker.logits([(split.queries[key], texts[item]) for key, item in rows])
    found: dict[str, dict[str, float]] = {key: {} for key in items}
    for (key, item), row in zip(rows, logits, strict=True):
        found[key][item] = probability(row)
    return found


def _best_first(scores: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(scores.items(), key=lambda each: -each[1]))


def _behind(items: Sequence[str]) -> dict[str, float]:
    """Scores below every probability, in the order given."""
    return {item: -float(at) for at, item in enumerate(items, 1)}
