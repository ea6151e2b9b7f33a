"""Retrieval measures a query, by `ir_measures` (which runs trec_eval's code)."""

from collections.abc import Mapping, Sequence

import ir_measures
from ir_measures import AP, RR, R, nDCG

from services.trainer.prepared import Grades

Qrels = Mapping[str, Mapping[str, float]]
"""Grade by item id, by query."""
Run = Mapping[str, Mapping[str, float]]
"""Score by item id, by query; higher ranks first."""

NDCG_10 = "ndcg@10"
MEASURES = (NDCG_10, "mrr@10", "recall@10", "recall@100", "map")
_STEPS = 1000
"""trec_eval knows whole gains only. NDCG does not change when every gain is multiplied by one number, so gains
are given in thousandths."""


def per_query(qrels: Qrels, run: Run, grades: Grades, names: Sequence[str] = MEASURES) -> dict[str, dict[str, float]]:
    """Each measure of each judged query, by measure and query; 0 for a query that the run does not answer.

    Queries without a relevant item are left out: no order of theirs is better than another.
    """
    relevant = max(_whole_gain(grades, grades.relevant), 1)
    measures = {
        NDCG_10: nDCG @ 10,
        "mrr@10": RR(rel=relevant) @ 10,
        "recall@10": R(rel=relevant) @ 10,
        "recall@100": R(rel=relevant) @ 100,
        "map": AP(rel=relevant),
    }
    judged = {
        query: {item: _whole_gain(grades, grade) for item, grade in items.items()}
        for query, items in qrels.items()
        if any(grade >= grades.relevant for grade in items.values())
    }
    found: dict[str, dict[str, float]] = {name: dict.fromkeys(judged, 0.0) for name in names}
    names_of = {measures[name]: name for name in names}
    for value in ir_measures.iter_calc(list(names_of), judged, {query: dict(run.get(query, {})) for query in judged}):
        found[names_of[value.measure]][value.query_id] = float(value.value)
    return found


def _whole_gain(grades: Grades, grade: float) -> int:
    return round(_STEPS * grades.gain(grade))
