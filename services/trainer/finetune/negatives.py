"""Hard negatives: what is found for a query, by the base model or by the shop's search, and nobody judged any good."""

import random
from collections.abc import Collection, Mapping

from services.trainer import retrieval
from services.trainer.evaluate.encode import Encoder, highest, scored
from services.trainer.finetune.data import Judgements
from services.trainer.prepared import Grades

RANKS = (5, 60)
"""The very first unjudged items are often good ones that nobody judged; far down they are not hard."""
_MARGIN = 0.05
"""A negative scores at least 5 % below its positive (Moreira et al., "NV-Retriever", 2024, TopK-PercPos)."""


def mined_negatives(
    judgements: Judgements, encoder: Encoder, texts: Mapping[str, str], grades: Grades, seed: int
) -> list[str]:
    """One item id a positive, of those that `encoder` ranks high over the whole catalogue; a random one where it finds
    none. `texts`: by item id, as the encoder reads them.

    Items judged to be in the upper half of the scale are no negatives, even where they are no positives either, nor
    is what reads like one of them.
    """
    chance = random.Random(seed)
    ids = sorted(texts)
    place = {item: at for at, item in enumerate(ids)}
    positives: dict[str, list[str]] = {}
    for positive in judgements.positives:
        positives.setdefault(positive.key, []).append(positive.item_id)
    vectors = encoder.items([texts[item] for item in ids])
    found: dict[tuple[str, str], str] = {}
    queries = [judgements.queries[key] for key in positives]
    for key, row in zip(positives, scored(encoder, queries, vectors), strict=True):
        good = {texts[item] for item, grade in judgements.judged[key].items() if grade >= _middle(grades)}
        ranked = [at for at in highest(row, RANKS[1] + len(good)) if texts[ids[at]] not in good]
        for item in positives[key]:
            most = (1 - _MARGIN) * row[place[item]]
            choice = [ids[at] for at in ranked[slice(*RANKS)] if row[at] <= most]
            if choice:
                found[key, item] = chance.choice(choice)
    return [found.get((row.key, row.item_id)) or chance.choice(ids) for row in judgements.positives]


def retrieved(target: str, encoder: Encoder, judgements: Judgements) -> dict[str, list[str]]:
    """What the `vector_retrieval` at `target` (host:port) finds, by query key: by words and vectors where `encoder` is
    a bundle, which the index must be of; by words alone where it is none.

    Raises `JobError` as `retrieval.search` does.
    """
    queries = list(judgements.queries.values())
    vectors = encoder.queries(queries) if encoder.version else None
    found = retrieval.search(target, queries, RANKS[1], vectors, encoder.version)
    return dict(zip(judgements.queries, found, strict=True))


def found_negatives(
    found: dict[str, list[str]], judgements: Judgements, items: Collection[str], grades: Grades, seed: int
) -> list[str]:
    """One item id a positive, of those that a search `found` by query key; a random one where it found none.

    The very first are passed over, and so are items judged to be in the upper half of the scale.
    """
    chance = random.Random(seed)
    everything = sorted(items)
    choice = {
        key: [
            item
            for item in ids[RANKS[0] :]
            if item in items and judgements.judged[key].get(item, grades.lowest) < _middle(grades)
        ]
        for key, ids in found.items()
    }
    return [chance.choice(choice.get(row.key) or everything) for row in judgements.positives]


def _middle(grades: Grades) -> float:
    return (grades.lowest + grades.highest) / 2
