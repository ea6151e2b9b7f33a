"""Hard negatives: what is found for a query, by the base model or by the shop's search, and nobody judged any good."""

import random

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from services.trainer import retrieval
from services.trainer.finetune.data import Judgements, Texts
from services.trainer.finetune.model import encode
from services.trainer.prepared import Grades
from services.trainer.progress import shown
from shared.bundles import Tower

RANKS = (5, 60)
"""The very first unjudged items are often good ones that nobody judged; far down they are not hard."""
_MARGIN = 0.05
"""A negative scores at least 5 % below its positive (Moreira et al., "NV-Retriever", 2024, TopK-PercPos)."""


def mined_negatives(
    model: SentenceTransformer, judgements: Judgements, texts: Texts, items: dict[str, str], grades: Grades, seed: int
) -> list[str]:
    """One item id a positive, from over the whole catalogue; a random one where the model finds none.

    Items judged to be in the upper half of the scale are no negatives, even where they are no positives either.
    """
    middle = (grades.lowest + grades.highest) / 2
    known_good = [
        (texts.query(judgements.queries[key]), items[item])
        for key, judged in judgements.judged.items()
        for item, grade in judged.items()
        if grade >= middle
    ]
    pairs = Dataset.from_dict({"anchor": [a for a, _ in known_good], "positive": [p for _, p in known_good]})
    mined = mine_hard_negatives(
        pairs,
        model,
        corpus=sorted(set(items.values())),
        range_min=RANKS[0],
        range_max=RANKS[1],
        relative_margin=_MARGIN,
        num_negatives=1,
        sampling_strategy="random",
        query_prompt="",
        corpus_prompt="",
        output_format="triplet",
        batch_size=64,
        verbose=shown(len(items)),
    )
    ids = {text: item for item, text in sorted(items.items(), reverse=True)}
    found = {(row["anchor"], row["positive"]): ids[row["negative"]] for row in mined}
    chance = random.Random(seed)
    everything = sorted(items)
    return [
        found.get((texts.query(row.query), items[row.item_id])) or chance.choice(everything)
        for row in judgements.positives
    ]


def retrieved(
    target: str, model: SentenceTransformer, version: str, judgements: Judgements, texts: Texts
) -> dict[str, list[str]]:
    """What the `vector_retrieval` at `target` (host:port) finds, by query key: by words and vectors where the base is a
    bundle, `version`, which the index must be of; by words alone where `version` is empty.

    Raises `JobError` as `retrieval.search` does.
    """
    keys = sorted(judgements.queries)
    queries = [judgements.queries[key] for key in keys]
    vectors = encode(model, [texts.query(query) for query in queries], Tower.QUERY) if version else None
    found = retrieval.search(target, queries, RANKS[1], vectors, version)
    return dict(zip(keys, found, strict=True))


def found_negatives(
    found: dict[str, list[str]], judgements: Judgements, items: dict[str, str], grades: Grades, seed: int
) -> list[str]:
    """One item id a positive, of those that a search `found` by query key; a random one where it found none.

    The very first are passed over, and so are items judged to be in the upper half of the scale.
    """
    middle = (grades.lowest + grades.highest) / 2
    chance = random.Random(seed)
    everything = sorted(items)
    choice = {
        key: [
            item
            for item in ids[RANKS[0] :]
            if item in items and judgements.judged[key].get(item, grades.lowest) < middle
        ]
        for key, ids in found.items()
    }
    return [chance.choice(choice.get(row.key) or everything) for row in judgements.positives]
