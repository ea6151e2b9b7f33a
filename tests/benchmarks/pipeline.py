"""The search a shop would write without a mesh: one Python process with a model, pymilvus and a re-ranker.

    python -m tests.benchmarks.pipeline torch http://127.0.0.1:19530 shop_1

Each line of standard input asks for a load (`{"callers": 32, "seconds": 4, "offset": 0}`) or for what it finds
(`{"queries": […]}`); each is answered by one line.

As a user would, it gives every caller a thread, and every thread encodes its own query: nothing is batched.
A forward pass has one thread or one a core, whichever serves more callers, which is tried at the start. It spares
itself what a careful user would: one forward pass gives both the vector to search by and the token vectors to re-rank
by, only the candidates that are re-ranked are decoded, and with `--keep` no item is encoded twice.
It finds what the mesh finds: the same model, candidates, re-ranker (`shared.inference.late_interaction`) and blend.
"""

import argparse
import base64
import itertools
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from aisle.catalog.v1 import item_pb2
from pymilvus import MilvusClient

from shared.bundles import Bundle, Precision, load_bundle
from shared.inference.late_interaction import Storage, TextVectors, interact
from shared.inference.text_rows import Floats, text_rows
from shared.inference.tokens import TextTokenizer, pad
from tests.benchmarks import load, texts
from tests.benchmarks.figures import ROOT
from tests.benchmarks.search_load import EF

CANDIDATES, RERANKED, SHOWN = 100, 32, 10
RERANK_WEIGHT = 0.5
"""All four as the gateway has them by default."""
_ENCODED = 32
"""Items a forward pass, where all of them are encoded beforehand."""
_CALLERS, _TRIED_S = 32, 1.5
_MOST_ROWS = 16_384
"""Milvus's bound on one read."""


class Model(Protocol):
    """Texts → token vectors."""

    def tokens(self, texts: Sequence[str]) -> list[Floats]:
        """(tokens, dimensions) a text, special tokens included."""


class Torch:
    """sentence-transformers as it comes."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self._model = SentenceTransformer(str(bundle.path), device="cpu")

    def tokens(self, texts: Sequence[str]) -> list[Floats]:
        """See `Model`."""
        found = self._model.encode(
            list(texts), output_value="token_embeddings", convert_to_numpy=False, show_progress_bar=False
        )
        return [row.numpy() for row in found]


class Onnx:
    """The bundle's int8 graph by ONNX Runtime."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(bundle.onnx_path(Precision.INT8), options)
        self._tokenizer = TextTokenizer(bundle.tokenizer_path, bundle.manifest.max_item_tokens)

    def tokens(self, texts: Sequence[str]) -> list[Floats]:
        """See `Model`."""
        batch = pad([self._tokenizer.encode(text) for text in texts])
        (found,) = self._session.run(["token_embeddings"], {"input_ids": batch.ids, "attention_mask": batch.mask})
        return [rows[:length] for rows, length in zip(found, batch.lengths, strict=True)]


MODELS = {"torch": Torch, "onnx": Onnx}


class Pipeline:
    """Searches `collection`. With `keep`, items' token vectors are made once, all of them before the first search."""

    def __init__(self, model: Model, bundle: Bundle, uri: str, collection: str, *, keep: bool) -> None:
        self._model = model
        self._bundle = bundle
        self._client = MilvusClient(uri)
        self._collection = collection
        self._kept: dict[str, TextVectors] = {}
        if keep:
            rows = self._client.query(collection, filter="", limit=_MOST_ROWS, output_fields=["payload"])
            items = [_item(row["payload"]) for row in rows]
            for at in range(0, len(items), _ENCODED):
                part = items[at : at + _ENCODED]
                self._kept.update(zip((item.id for item in part), self._encoded(part), strict=True))

    def search(self, query: str) -> list[item_pb2.Item]:
        """A page of items, best first."""
        (tokens,) = self._model.tokens([query])
        asked = text_rows(tokens, self._bundle.manifest.pooling)
        (hits,) = self._client.search(
            self._collection,
            data=[asked[-1].tobytes()],
            anns_field="vector",
            limit=CANDIDATES,
            output_fields=["payload"],
            search_params={"metric_type": "COSINE", "params": {"ef": EF}},
            consistency_level="Bounded",
        )
        first = hits[:RERANKED]
        items = [_item(hit["entity"]["payload"]) for hit in first]
        relevance = _scaled(interact(asked, self._vectors(items)))
        prior = _scaled([hit["distance"] for hit in first])
        order = np.argsort(-(RERANK_WEIGHT * relevance + (1 - RERANK_WEIGHT) * prior), kind="stable")
        return [items[at] for at in order[:SHOWN]]

    def _vectors(self, items: Sequence[item_pb2.Item]) -> list[TextVectors]:
        return [self._kept[item.id] for item in items] if self._kept else self._encoded(items)

    def _encoded(self, items: Sequence[item_pb2.Item]) -> list[TextVectors]:
        found = self._model.tokens([self._bundle.item_text(item) for item in items])
        return [TextVectors.pack(text_rows(rows, self._bundle.manifest.pooling), Storage.INT8) for rows in found]


def _item(payload: str) -> item_pb2.Item:
    return item_pb2.Item.FromString(base64.b64decode(payload))


def _scaled(values: Sequence[float]) -> Floats:
    """To 0…1."""
    given = np.asarray(values, np.float32)
    span = np.ptp(given)
    scaled: Floats = (given - given.min()) / span if span > 0 else np.ones_like(given)
    return scaled


def _fastest(name: str, bundle: Bundle) -> Model:
    """The model with one thread a forward pass, or with one a core: whichever encodes more queries of many callers."""
    questions = itertools.cycle(texts.queries(1_000))
    rates: dict[float, int] = {}
    for threads in (1, len(os.sched_getaffinity(0))):
        model = MODELS[name](bundle, threads)
        model.tokens([next(questions)])
        taken, elapsed = load.by_threads(lambda: model.tokens([next(questions)]), _CALLERS, _TRIED_S)  # noqa: B023
        rates[len(taken) / elapsed] = threads
    # Opened anew: with torch the number is the whole process's.
    return MODELS[name](bundle, rates[max(rates)])


def _answer(pipeline: Pipeline, asked: dict[str, Any]) -> dict[str, Any]:
    if "queries" in asked:
        return {"found": [[item.id for item in pipeline.search(query)] for query in asked["queries"]]}
    questions = itertools.cycle(texts.queries(20_000)[asked["offset"] :])
    return load.summary(*load.by_threads(lambda: pipeline.search(next(questions)), asked["callers"], asked["seconds"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("uri", help="address of a Milvus server")
    parser.add_argument("collection")
    parser.add_argument("--keep", action="store_true", help="keep items' token vectors, as the mesh's re-ranker does")
    given = parser.parse_args()
    opened = load_bundle(ROOT / "build" / "models" / "minilm")
    serving = Pipeline(_fastest(given.model, opened), opened, given.uri, given.collection, keep=given.keep)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(serving, json.loads(line))) + "\n")
        sys.stdout.flush()
