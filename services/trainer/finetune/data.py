"""Rows to train on: a query, a good item, perhaps a bad one, and the labels that the loss wants (see `loss`)."""

import random
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from math import log

import polars as pl
from datasets import Dataset

from services.trainer.finetune.options import FinetuneOptions
from services.trainer.prepared import Grades, PreparedSet, by_chance
from shared.bundles import ItemTemplate, Prompts, render


@dataclass(frozen=True, slots=True)
class Texts:
    """What the model reads, exactly as serving writes it: prompt, then text."""

    template: ItemTemplate
    prompts: Prompts

    def query(self, text: str) -> str:
        """Of a query."""
        return self.prompts.query + text

    def items(self, prepared: PreparedSet) -> dict[str, str]:
        """Of every item, by id."""
        return {item.id: self.prompts.item + render(self.template, item) for item in prepared.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """A (query, item) pair to learn."""

    key: str
    query: str
    item_id: str
    grade: float


@dataclass(frozen=True, slots=True)
class Judgements:
    """A split in memory: what is good for a query, and what is known to be bad."""

    positives: list[Row]
    judged: dict[str, dict[str, float]]
    """Grade by item id, by query key."""
    queries: dict[str, str]
    """Text by key."""


def read_judgements(frame: pl.DataFrame, positive_grade: float, most_queries: int, seed: int) -> Judgements:
    """`most_queries` > 0 takes the queries whose hash is smallest, so that a larger number holds a smaller one's."""
    if most_queries:
        frame = frame.filter(pl.col("key").is_in(by_chance(frame["key"].unique(), seed)[:most_queries]))
    positives = []
    judged: dict[str, dict[str, float]] = {}
    queries: dict[str, str] = {}
    for key, query, item_id, grade in frame.select("key", "query", "item_id", "grade").iter_rows():
        queries.setdefault(key, query)
        judged.setdefault(key, {})[item_id] = grade
        if grade >= positive_grade:
            positives.append(Row(key, queries[key], item_id, grade))
    return Judgements(positives, judged, queries)


def judged_negatives(judgements: Judgements, grades: Grades, item_ids: list[str], seed: int) -> list[str]:
    """One item a positive: judged to be in the lower half of the scale, or a random one where none was."""
    chance = random.Random(seed)
    bad_below = (grades.lowest + grades.highest) / 2
    bad = {
        key: [item for item, grade in sorted(items.items()) if grade < bad_below]
        for key, items in judgements.judged.items()
    }
    return [chance.choice(bad[row.key] or item_ids) for row in judgements.positives]


def ranking_dataset(
    judgements: Judgements, negatives: list[str] | None, texts: Texts, items: dict[str, str], grades: Grades,
    options: FinetuneOptions,
) -> Dataset:  # fmt: skip
    """Columns anchor, positive, negative (where there are any) and label."""
    rows = judgements.positives
    columns = [[row.item_id for row in rows]] + ([negatives] if negatives is not None else [])
    chances = log_chances(columns) if options.correct_popularity else {}
    weights = [grades.gain(row.grade) if options.grade_weights else 1.0 for row in rows]
    data: dict[str, list[object]] = {
        "anchor": [texts.query(row.query) for row in rows],
        "positive": [items[row.item_id] for row in rows],
    }
    if negatives is not None:
        data["negative"] = [items[item] for item in negatives]
    data["label"] = [
        [weight, *(chances.get(item, 0.0) for item in documents)]
        for weight, *documents in zip(weights, *columns, strict=True)
    ]
    return Dataset.from_dict(data)


def graded_dataset(judgements: Judgements, texts: Texts, items: dict[str, str], grades: Grades) -> Dataset:
    """Columns sentence1, sentence2 and score, 0 for the lowest grade and 1 for the highest."""
    span = grades.highest - grades.lowest
    rows = [
        (texts.query(judgements.queries[key]), items[item], (grade - grades.lowest) / span)
        for key, judged in judgements.judged.items()
        for item, grade in judged.items()
    ]
    names = ("sentence1", "sentence2", "score")
    return Dataset.from_dict({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})


def log_chances(columns: list[list[str]]) -> dict[str, float]:
    """log q by item: q is the share of all places for items, in all batches, that the item takes."""
    counts = Counter(chain.from_iterable(columns))
    places = sum(counts.values())
    return {item: log(count / places) for item, count in counts.items()}
