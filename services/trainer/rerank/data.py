"""Lists to rank: a query, the items judged for it, and items that nobody judged, each with the label to learn."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from services.trainer import retrieval
from services.trainer.evaluate.encode import Encoder, highest, scored
from services.trainer.finetune.data import Judgements, Texts
from services.trainer.parts import Parts, digest
from services.trainer.prepared import Grades

_RANKS = (3, 40)
"""Where negatives are taken from: the retriever's very first unjudged items are often good ones."""


@dataclass(frozen=True, slots=True)
class RankedList:
    """One query's list."""

    key: str
    query: str
    item_ids: list[str]
    texts: list[str]
    labels: list[float]
    """0 for the lowest grade and for what nobody judged, 1 for the highest; or what a teacher says."""


def ranked_lists(
    judgements: Judgements, unjudged: dict[str, list[str]], texts: Texts, items: dict[str, str], grades: Grades
) -> list[RankedList]:
    """Judged items first, in the order of their ids, then the unjudged ones."""
    span = grades.highest - grades.lowest
    found = []
    for key in sorted(judgements.judged):
        judged = judgements.judged[key]
        ids = [*judged, *unjudged[key]]
        labels = [(judged.get(item, grades.lowest) - grades.lowest) / span for item in ids]
        query = texts.query(judgements.queries[key])
        found.append(RankedList(key, query, ids, [items[item] for item in ids], labels))
    return found


def random_items(judgements: Judgements, item_ids: list[str], count: int, seed: int) -> dict[str, list[str]]:
    """`count` items a query that nobody judged for it."""
    chance = random.Random(seed)
    found = {}
    for key in sorted(judgements.judged):
        sampled = chance.sample(item_ids, min(len(item_ids), count + len(judgements.judged[key])))
        found[key] = [item for item in sampled if item not in judgements.judged[key]][:count]
    return found


def retrieved_items(
    judgements: Judgements, retriever: Encoder, texts: dict[str, str], count: int, seed: int, parts: Parts
) -> dict[str, list[str]]:
    """`count` items a query that nobody judged for it, out of what `retriever` finds in the catalogue.

    `texts`: by item id, as the retriever reads them. What is found is kept in `parts`.
    """
    ids = sorted(texts)
    vectors = retriever.items([texts[item] for item in ids])
    keys = sorted(judgements.judged)
    depth = min(_RANKS[1], len(ids))

    def places(queries: Sequence[str]) -> NDArray[np.int64]:
        """(queries, depth): places in `ids`."""
        return np.array([highest(row, depth) for row in scored(retriever, queries, vectors)], np.int64)

    of = ["best items", retriever.digest, depth, digest(texts)]
    ranked = parts.rows(of, [judgements.queries[key] for key in keys], places)
    found = {key: [ids[at] for at in row] for key, row in zip(keys, ranked, strict=True)}
    return _unjudged(judgements, found, count, seed)


def searched_items(
    judgements: Judgements, target: str, retriever: Encoder | None, known: Collection[str], count: int, seed: int,
    parts: Parts,
) -> dict[str, list[str]]:  # fmt: skip
    """`count` items a query that nobody judged for it, out of what the `vector_retrieval` at `target` (host:port)
    finds, by words and the vectors of `retriever`, which must be the bundle that its index is of; by words alone where
    there is none. Items that are not `known` are left out. What is found is kept in `parts`.

    Raises `JobError` as `retrieval.search` does.
    """
    keys = sorted(judgements.judged)

    def found_ids(queries: Sequence[str]) -> NDArray[np.str_]:
        """(queries, depth): item ids, empty where fewer were found."""
        vectors, version = (retriever.queries(queries), retriever.version) if retriever else (None, "")
        found = retrieval.search(target, queries, _RANKS[1], vectors, version)
        return np.array([[*ids, *[""] * (_RANKS[1] - len(ids))] for ids in found], np.str_)

    of = ["searched items", target, retriever.digest if retriever else "", _RANKS[1]]
    ranked = parts.rows(of, [judgements.queries[key] for key in keys], found_ids)
    found = {key: [item for item in ids if item in known] for key, ids in zip(keys, ranked.tolist(), strict=True)}
    return _unjudged(judgements, found, count, seed)


def _unjudged(judgements: Judgements, found: dict[str, list[str]], count: int, seed: int) -> dict[str, list[str]]:
    """`count` of what was `found` for each query, best first, that nobody judged, without the very first."""
    chance = random.Random(seed)
    unjudged = {}
    for key, ids in found.items():
        choice = [item for item in ids[_RANKS[0] :] if item not in judgements.judged[key]]
        unjudged[key] = chance.sample(choice, min(count, len(choice)))
    return unjudged


def pairs_dataset(lists: list[RankedList]) -> Dataset:
    """A row a (query, item) pair: query, item, label."""
    rows = [(each.query, text, label) for each in lists for text, label in zip(each.texts, each.labels, strict=True)]
    names = ("query", "item", "label")
    return Dataset.from_dict({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})


def lists_dataset(lists: list[RankedList]) -> Dataset:
    """A row a query: query, items, labels."""
    return Dataset.from_dict(
        {
            "query": [each.query for each in lists],
            "items": [each.texts for each in lists],
            "labels": [each.labels for each in lists],
        }
    )
