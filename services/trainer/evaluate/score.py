"""One model over one split: what it finds in the whole catalogue, and how it scores the judged pairs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from services.trainer.errors import JobError
from services.trainer.evaluate.classification import Classification, best_threshold, classify
from services.trainer.evaluate.encode import Encoder, Named, Vectors, highest, scored
from services.trainer.evaluate.measures import NDCG_10, Qrels, Run, per_query
from services.trainer.evaluate.resampling import Judged
from services.trainer.prepared import Grades, PreparedSet

if TYPE_CHECKING:
    from shared.items import Item

DEPTH = 1_000
"""Ranks that are measured: trec_eval's own default."""
JUDGED_NDCG_10 = "judged ndcg@10"
"""NDCG@10 where only the judged items are ranked. High even for a random order where most of them are good."""


@dataclass(frozen=True)
class Split:
    """Judgements of one split: texts and grades by query key."""

    queries: Mapping[str, str]
    qrels: Qrels


class Data:
    """The parts of a prepared set that an evaluation looks at."""

    def __init__(self, prepared: PreparedSet, split: str, most_items: int = 0, before: Collection[str] = ()) -> None:
        """`before`: query keys of an earlier set, for slices by age."""
        self.before = before
        self.grades: Grades = prepared.report.grades
        self.split = _read(prepared, split)
        # A threshold is chosen on other queries than it is judged on, where there are any.
        self.tuning_split = "valid" if split != "valid" and "valid" in prepared.report.splits else split
        self.tuning = _read(prepared, self.tuning_split)
        self.popularity = _popularity(prepared)
        judged = {item for part in (self.split, self.tuning) for items in part.qrels.values() for item in items}
        self.items: list[Item] = []
        self.catalogue = 0
        """Items there are; `items` are those that are searched."""
        for item in prepared.items():
            self.catalogue += 1
            if not most_items or item.id in judged or len(self.items) < most_items:
                self.items.append(item)

    @cached_property
    def relevant(self) -> dict[str, list[str]]:
        """Relevant items by query key."""
        found = {
            key: [item for item, grade in items.items() if grade >= self.grades.relevant]
            for key, items in self.split.qrels.items()
        }
        return {key: items for key, items in found.items() if items}


@dataclass(frozen=True)
class Scored:
    """Everything that is measured of one model."""

    name: str
    version: str
    """Of a bundle; empty for a model folder."""
    measures: dict[str, dict[str, float]]
    """By measure and query key."""
    classification: Classification
    judged: Judged
    """What `classification` is of."""
    run: Run
    """The first `DEPTH` items of each query with their cosines."""


def score(encoder: Encoder, data: Data) -> Scored:
    """Encode the catalogue and the queries, and measure. Minutes on a CPU."""
    ids, vectors = _catalogue(encoder, data)
    run, pairs = _search(encoder, data.split, ids, vectors)
    _, tuning = (run, pairs) if data.tuning is data.split else _search(encoder, data.tuning, ids, vectors, depth=0)
    return summarise(encoder, data, run, pairs, tuning)


def retrieve(encoder: Encoder, data: Data) -> Run:
    """The first `DEPTH` items of each query of the split. Minutes on a CPU."""
    run, _ = _search(encoder, data.split, *_catalogue(encoder, data))
    return run


def summarise(model: Named, data: Data, run: Run, pairs: Run, tuning: Run) -> Scored:
    """Measures of `run`, what `model` returned for the split's queries, and of its scores of the judged items: `pairs`
    are the split's, `tuning` those of `data.tuning`, on which the threshold of relevance is chosen."""
    threshold = best_threshold(*_labels(data.tuning.qrels, tuning, data.grades))
    labels, scores = _labels(data.split.qrels, pairs, data.grades)
    sizes = [len(items) for items in data.split.qrels.values()]
    return Scored(
        name=model.name,
        version=model.version,
        measures={
            **per_query(data.split.qrels, run, data.grades),
            JUDGED_NDCG_10: judged_ndcg(data.split.qrels, pairs, data.grades),
        },
        classification=classify(labels, scores, threshold),
        judged=Judged(np.repeat(np.arange(len(sizes)), sizes), np.array(labels), np.array(scores), threshold),
        run=run,
    )


def _catalogue(encoder: Encoder, data: Data) -> tuple[list[str], Vectors]:
    return [item.id for item in data.items], encoder.items([encoder.item_text(item) for item in data.items])


def judged_ndcg(qrels: Qrels, pairs: Run, grades: Grades) -> dict[str, float]:
    """NDCG@10 over judged items alone; queries whose items are all relevant say nothing of order and are left out."""
    mixed = {key: items for key, items in qrels.items() if any(grade < grades.relevant for grade in items.values())}
    return per_query(mixed, pairs, grades, (NDCG_10,))[NDCG_10]


def _search(encoder: Encoder, split: Split, ids: list[str], items: Vectors, depth: int = DEPTH) -> tuple[Run, Run]:
    """The best of the whole catalogue, and the scores of the judged items, by query key."""
    place = {item: at for at, item in enumerate(ids)}
    run: dict[str, dict[str, float]] = {}
    pairs: dict[str, dict[str, float]] = {}
    for key, row in zip(split.queries, scored(encoder, list(split.queries.values()), items), strict=True):
        pairs[key] = {item: float(row[place[item]]) for item in split.qrels[key]}
        if depth:
            run[key] = {ids[at]: float(row[at]) for at in highest(row, depth)}
    return run, pairs


def _labels(qrels: Qrels, pairs: Run, grades: Grades) -> tuple[list[bool], list[float]]:
    rows = [
        (grade >= grades.relevant, pairs[key][item]) for key, items in qrels.items() for item, grade in items.items()
    ]
    return [label for label, _ in rows], [value for _, value in rows]


def _popularity(prepared: PreparedSet) -> dict[str, int]:
    """Training judgements by item; none of a set that is there to measure on alone."""
    if "train" not in prepared.report.splits:
        return {}
    return dict(prepared.split("train").group_by("item_id").len().iter_rows())


def _read(prepared: PreparedSet, name: str) -> Split:
    frame = prepared.split(name)
    if frame.is_empty():
        raise JobError(f"the split {name} is empty")
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, float]] = {}
    for key, query, item, grade in frame.select("key", "query", "item_id", "grade").iter_rows():
        queries.setdefault(key, query)
        qrels.setdefault(key, {})[item] = grade
    return Split(queries, qrels)
