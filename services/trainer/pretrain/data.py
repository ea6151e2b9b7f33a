"""Rows to learn from: items' texts, and made-up queries with theirs."""

import random
from dataclasses import dataclass

from datasets import Dataset

from services.trainer.finetune.data import Judgements, Row, Texts
from services.trainer.prepared import Grades, PreparedSet
from services.trainer.pretrain.queries import QueryMaker
from shared.items import Item

_NEUTRAL = [1.0, 0.0]
"""Weight and log q of a row (see `finetune.loss`): every item is as likely to be in a batch as any other."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Who is learnt from, who is held out, and what a model reads of them."""

    items: list[Item]
    """All of them."""
    texts: dict[str, str]
    """By item id: of all of them."""
    learnt: list[str]
    held_out: list[str]
    """Ids for validation where there are no judgements; never among the learnt ones."""


def read_catalogue(prepared: PreparedSet, texts: Texts, most_items: int, held_out: int, seed: int) -> Catalogue:
    """`most_items` > 0 learns from that many, so that a larger number holds a smaller one's. At most a tenth is held
    out."""
    items = list(prepared.items())
    order = sorted(item.id for item in items)
    random.Random(seed).shuffle(order)
    apart = min(held_out, len(order) // 10)
    learnt = order[apart:]
    return Catalogue(items, texts.items(prepared), learnt[: most_items or None], order[:apart])


def texts_dataset(catalogue: Catalogue) -> Dataset:
    """One column, text."""
    return Dataset.from_dict({"text": [catalogue.texts[item] for item in catalogue.learnt]})


def twins_dataset(catalogue: Catalogue) -> Dataset:
    """Columns anchor and positive, which are the same, and label."""
    texts = [catalogue.texts[item] for item in catalogue.learnt]
    return Dataset.from_dict({"anchor": texts, "positive": texts, "label": [_NEUTRAL] * len(texts)})


def queries_dataset(catalogue: Catalogue, maker: QueryMaker, texts: Texts, count: int, seed: int) -> Dataset:
    """Columns anchor (a query), positive (its item) and label; `count` queries an item."""
    rows = [
        (texts.query(query), catalogue.texts[item])
        for item in catalogue.learnt
        for query in maker.queries(item, count, seed)
    ]
    return Dataset.from_dict(
        {"anchor": [row[0] for row in rows], "positive": [row[1] for row in rows], "label": [_NEUTRAL] * len(rows)}
    )


def known_items(catalogue: Catalogue, maker: QueryMaker, grades: Grades, seed: int) -> Judgements:
    """A made-up query for each item that is held out, whose only good item it is."""
    found = [(item, query) for item in catalogue.held_out for query in maker.queries(item, 1, seed)]
    return Judgements(
        [Row(item, query, item, grades.highest) for item, query in found],
        {item: {item: grades.highest} for item, _ in found},
        dict(found),
    )
