"""The rows of part "retrieval" about hybrid search: what fusing adds to the better half, as people judged the hits.

All through the service on Milvus Lite, which ranks by words, and fused as the gateway asks for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from aisle.catalog.v1 import filter_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.gateway.settings import GatewaySettings
from tests.benchmarks import corpora, vectors
from tests.benchmarks.bench import Measured, Row
from tests.benchmarks.corpora import Judged
from tests.benchmarks.figures import Goal
from tests.benchmarks.indexes import Index, indexed
from tests.benchmarks.shops import Shops
from tests.benchmarks.vectors import Vectors

CUT = 10
DEPTH = 100
_RESAMPLES = 2_000

_WEIGHT = float(GatewaySettings.model_fields["dense_weight"].default)
MODES: dict[str, tuple[pb.SearchMode.ValueType, pb.Fusion | None]] = {
    "dense": (pb.SEARCH_MODE_DENSE, None),
    "lexical": (pb.SEARCH_MODE_LEXICAL, None),
    "hybrid": (pb.SEARCH_MODE_HYBRID, pb.Fusion(linear=pb.Linear(dense=_WEIGHT, lexical=1 - _WEIGHT))),
    "rrf": (pb.SEARCH_MODE_HYBRID, pb.Fusion(reciprocal_rank=pb.ReciprocalRank())),
    "weighted": (pb.SEARCH_MODE_HYBRID, pb.Fusion(weighted=pb.Weighted(dense=0.5, lexical=0.5))),
}
"""The halves, what the gateway asks for, and the other ways to fuse."""

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries in words and as vectors."""

    texts: list[str]
    vectors: Vectors

    async def of(self, index: Index, mode: str, only: Sequence[Sequence[str]] | None = None) -> list[list[str]]:
        """Ids found for each query by `mode`; among `only`, where given."""
        how, fusion = MODES[mode]
        if only is None:
            return await index.search(self.vectors, DEPTH, texts=self.texts, mode=how, fusion=fusion)
        found = []
        for at, ids in enumerate(only):
            among = filter_pb2.Filter(text=filter_pb2.TextCondition(field="id", values=ids))
            row, text = self.vectors[at : at + 1], self.texts[at : at + 1]
            found += await index.search(row, DEPTH, among, texts=text, mode=how, fusion=fusion)
        return found


async def whole_catalogue(bench: Shops) -> list[Measured]:
    """Home Depot's test queries over all its titles; what nobody judged is worth nothing."""
    judged = corpora.home_depot("test")
    queries = list(judged.grades)
    return [await _compared(bench, judged, queries, None)]


async def judged_items(bench: Shops) -> list[Measured]:
    """Icecat's queries among the items judged for each, where some are relevant and some are not."""
    judged = corpora.icecat()
    queries = [
        query for query, grades in judged.grades.items() if 0 < sum(g >= 2 for g in grades.values()) < len(grades)
    ]
    return [await _compared(bench, judged, queries, [list(judged.grades[query]) for query in queries])]


async def _compared(bench: Shops, judged: Judged, queries: list[str], only: Sequence[Sequence[str]] | None) -> Measured:
    items = judged.corpus.items
    rows = await vectors.of_items(bench, items)
    asked = Asked(queries, await vectors.of_queries(bench, queries))
    async with indexed(judged.corpus.name, "", items, rows, bench.bundle.version) as index:
        found = {mode: await asked.of(index, mode, only) for mode in MODES}
    scores = {mode: _ndcg(judged, queries, hits) for mode, hits in found.items()}
    means = {mode: float(one.mean()) for mode, one in scores.items()}
    better = max(("dense", "lexical"), key=lambda mode: means[mode])
    low, high = _interval(scores["hybrid"], scores[better])
    raw = {
        "ndcg_at_10": means,
        "recall_at_100": {mode: _recall(judged, queries, hits) for mode, hits in found.items()},
        "queries": len(queries),
        "ratio_95_percent_interval": [low, high],
    }
    listed = ", ".join(f"{mode} {mean:.3f}" for mode, mean in means.items())
    note = f"NDCG@10 of {len(queries):,} queries: {listed}; 95 % of resamples within {low:.3f} to {high:.3f}"
    return Measured(means["hybrid"] / means[better], raw, note)


def _ndcg(judged: Judged, queries: Sequence[str], found: Sequence[Sequence[str]]) -> Scores:
    """Of each query, the discounted gain of its first `CUT` hits, of the most there could be."""
    discounts = 1 / np.log2(np.arange(2, CUT + 2))
    scores = []
    for query, hits in zip(queries, found, strict=True):
        gains = np.array([judged.gain(query, item_id) for item_id in hits[:CUT]])
        ideal = np.sort([judged.gain(query, item_id) for item_id in judged.grades[query]])[::-1][:CUT]
        best = float(ideal @ discounts[: len(ideal)])
        # A query with nothing worth finding says nothing of who finds it.
        scores.append(float(gains @ discounts[: len(gains)]) / best if best else np.nan)
    return np.array(scores)[~np.isnan(scores)]


def _recall(judged: Judged, queries: Sequence[str], found: Sequence[Sequence[str]]) -> float:
    """Mean share of what is worth anything that is among the hits."""
    shares = []
    for query, hits in zip(queries, found, strict=True):
        worth = {item_id for item_id in judged.grades[query] if judged.gain(query, item_id) > 0}
        if worth:
            shares.append(len(worth.intersection(hits)) / len(worth))
    return float(np.mean(shares))


def _interval(ours: Scores, theirs: Scores) -> tuple[float, float]:
    """Where the ratio of the means lies in 95 % of resamples of the queries."""
    draw = np.random.default_rng(7)
    picks = draw.integers(len(ours), size=(_RESAMPLES, len(ours)))
    ratios = ours[picks].mean(axis=1) / theirs[picks].mean(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


_NAME = "hybrid NDCG@10 ÷ the better half's"

ROWS: dict[str, Row[Shops]] = {
    "hybrid-home-depot": Row((Goal(f"{_NAME}, Home Depot test, whole catalogue", 1.05),), whole_catalogue),
    "hybrid-icecat": Row((Goal(f"{_NAME}, Icecat, judged items", 1.0),), judged_items),
}
