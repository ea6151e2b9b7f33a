"""The validation set as model inputs, and the questions an export asks of a graph with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from services.trainer.progress import shown
from services.trainer.validation import ValidationSet
from shared.bundles import Tower
from shared.inference.tokens import TextTokenizer, Tokens, pad

Array = NDArray[np.float32]

BATCH = 32
TOP = 10


@dataclass(frozen=True, slots=True)
class Answers:
    """What one graph says about the validation set."""

    rows: Array
    """(n, d): a vector a text, or a list of scores a query; compared between graphs by cosine."""
    scores: Array
    """(queries, candidates): higher ranks first."""
    relevant: NDArray[np.int64]
    """(queries,): the column of each query's positive."""

    def ranking(self) -> NDArray[np.int64]:
        """(queries, candidates): columns from best to worst; ties keep the candidates' order."""
        return np.argsort(-self.scores, axis=1, kind="stable")

    def ndcg(self) -> float:
        """NDCG@10 with one relevant candidate a query, mean over queries."""
        ranks = (self.ranking() == self.relevant[:, None]).argmax(axis=1)
        return float(np.where(ranks < TOP, 1 / np.log2(ranks + 2), 0.0).mean())


class Probe(Protocol):
    """How a kind of model is examined."""

    @property
    def inputs(self) -> Sequence[Tokens]:
        """Every model input of the validation set."""

    @property
    def output(self) -> str:
        """The graph's output that serving uses."""

    def answers(self, session: onnxruntime.InferenceSession) -> Answers:
        """Run the whole validation set."""


class BiEncoderProbe:
    """Texts are encoded alone; every positive is a candidate for every query."""

    output = "sentence_embedding"

    def __init__(self, validation: ValidationSet, queries: TextTokenizer, items: TextTokenizer) -> None:
        self._count = len(validation.queries)
        self.inputs = [
            *map(queries.encode, validation.queries),
            *map(items.encode, validation.positives),
        ]

    def answers(self, session: onnxruntime.InferenceSession) -> Answers:
        """See `Probe`."""
        rows = run_all(session, self.inputs, self.output)
        scores = rows[: self._count] @ rows[self._count :].T
        return Answers(rows, scores, np.arange(self._count))


class TowerProbe:
    """One of two towers: what it reads is encoded, and the vectors of what the other reads are given."""

    output = "sentence_embedding"

    def __init__(self, texts: Sequence[Tokens], others: Array, tower: Tower) -> None:
        self.inputs = texts
        self._others = others
        self._tower = tower

    def answers(self, session: onnxruntime.InferenceSession) -> Answers:
        """See `Probe`."""
        rows = run_all(session, self.inputs, self.output)
        scores = rows @ self._others.T if self._tower is Tower.QUERY else self._others @ rows.T
        return Answers(rows, scores, np.arange(len(rows)))


class CrossEncoderProbe:
    """Each query is paired with its own positive and those of the next `candidates - 1` queries."""

    output = "logits"

    def __init__(
        self, validation: ValidationSet, queries: TextTokenizer, pairs: TextTokenizer, candidates: int = 20
    ) -> None:
        self._count = len(validation.queries)
        self._candidates = min(candidates, self._count)
        self.inputs = []
        for index, query in enumerate(validation.queries):
            start = queries.start(query)
            others = (validation.positives[(index + step) % self._count] for step in range(self._candidates))
            self.inputs += [pairs.pair(start, text) for text in others]

    def answers(self, session: onnxruntime.InferenceSession) -> Answers:
        """See `Probe`. With several labels the last one is taken for relevance."""
        logits = run_all(session, self.inputs, self.output)[:, -1]
        scores = logits.reshape(self._count, self._candidates)
        return Answers(scores, scores, np.zeros(self._count, np.int64))


def feeds(session: onnxruntime.InferenceSession, rows: Sequence[Tokens]) -> dict[str, Any]:
    """The graph's inputs for one batch."""
    batch = pad(rows)
    values = {"input_ids": batch.ids, "attention_mask": batch.mask, "token_type_ids": batch.types}
    return {node.name: values[node.name] for node in session.get_inputs()}


def run_all(session: onnxruntime.InferenceSession, rows: Sequence[Tokens], output: str) -> Array:
    """`output` of every row, in order; run in batches of similar length."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    starts = tqdm(range(0, len(order), BATCH), "encoding", unit="batch", disable=not shown(len(rows)), leave=False)
    parts = [
        session.run([output], feeds(session, [rows[index] for index in order[at : at + BATCH]]))[0] for at in starts
    ]
    joined: Array = np.concatenate(parts)
    result = np.empty_like(joined)
    result[order] = joined
    return result


def largest_change_with_batch(session: onnxruntime.InferenceSession, rows: Sequence[Tokens], output: str) -> float:
    """How far any component moves between a row alone and in a batch of 64 mixed lengths, at most."""
    mixed = spread(rows, 64)
    together: Array = session.run([output], feeds(session, mixed))[0]
    alone: Array = np.concatenate([session.run([output], feeds(session, [row]))[0] for row in mixed[::4]])
    return float(np.abs(together[::4] - alone).max())


def spread(rows: Sequence[Tokens], count: int) -> list[Tokens]:
    """`count` rows (or all, if fewer) from over the whole set, so that lengths are mixed."""
    picked = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
    return [rows[index] for index in picked]
