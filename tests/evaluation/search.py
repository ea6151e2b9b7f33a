"""Task "search": words, vectors, both, and re-rankers, on a prepared set of judged queries.

Two ways of measuring: over the whole catalogue, where an item that nobody judged counts as irrelevant, and over the
judged items alone. The first favours what resembles how the judged items were once found, the second has a high floor.
"""

import asyncio
import contextlib
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn.metrics import roc_auc_score

from services.gateway.settings import GatewaySettings
from services.trainer.evaluate.encode import Encoder, Vectors, open_encoder
from services.trainer.evaluate.kept import KeptEncoder
from services.trainer.evaluate.measures import NDCG_10, per_query
from services.trainer.evaluate.score import DEPTH, JUDGED_NDCG_10, Data, Split, judged_ndcg
from services.trainer.evaluate.statistics import estimate
from services.trainer.parts import Parts, digest
from services.trainer.prepared import PreparedSet
from services.vector_retrieval.fusion import Linear
from services.vector_retrieval.settings import VectorRetrievalSettings
from shared.bundles import Bundle, BundleKind, Precision, load_bundle
from shared.inference import open_scorer
from shared.inference.scorer import Scorer
from tests.benchmarks.figures import Figure, Goal
from tests.evaluation import goals, served
from tests.evaluation.goals import RECALL, Part
from tests.evaluation.lexical import Bm25
from tests.evaluation.measured import Measured
from tests.evaluation.retrievers import HALF, RERANKED, ByVector, ByWords, Hybrid, Random, Reranked, Retriever, fused
from tests.evaluation.texts import VECTORS

Report = Callable[[str], None]

WEIGHTS = (0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)
"""Shares of the vectors that are tried on the validation split."""
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
"""The same of a re-ranker."""
_SHARE_QUERIES = 400
"""Queries that choose it: a re-ranker takes a tenth of a second for each."""
_TIMED_QUERIES = 100
"""Queries that two re-rankers are timed by, in turns."""


@dataclass(frozen=True)
class Models:
    """What is measured: bundles or model folders. Re-rankers are bundles of cross-encoders."""

    base: str
    tuned: Sequence[str]
    rerankers: Sequence[Path]
    precision: Precision
    through_mesh: bool
    """Whether the last of `tuned` (else `base`) and the re-rankers are measured through the running mesh, too."""
    distilled: Sequence[Path] = ()
    """Re-rankers that learnt from the last of `rerankers`."""

    @property
    def best(self) -> Path:
        """The one that is re-ranked and served: a bundle."""
        return Path((self.base, *self.tuned)[-1])

    @property
    def reranking(self) -> list[tuple[Path, Part | None]]:
        """What re-ranks, each with the part that it plays: late interaction of `best` first."""
        cross_encoders = ((path, Part.CROSS_ENCODER) for path in self.rerankers)
        return [(self.best, None), *cross_encoders, *((path, Part.DISTILLED) for path in self.distilled)]


def run(prepared: PreparedSet, split: str, models: Models, cache: Path, report: Report) -> list[Figure]:
    """Measures every way. Vectors of the catalogue are kept in `cache`: minutes of a CPU, and always the same."""
    data = Data(prepared, split)
    where = f"{prepared.path.name}, {split}"
    own = "train" in prepared.report.splits
    with contextlib.ExitStack() as stack:
        measured: list[Measured] = []
        parts: dict[Part, Measured] = {}
        ways: dict[Part, Retriever] = {}
        for part, retriever in _retrievers(data, models, cache, stack, report):
            one = _measure(retriever, data)
            report(_line(one))
            measured.append(one)
            if part is not None:
                parts[part], ways[part] = one, retriever
        times = _timed(ways, data) if own else {}
        for one in _served(data, models, cache / "shop") if models.through_mesh else ():
            report(_line(one))
            measured.append(one)
    reached = goals.reached(parts, where, times) if own else goals.carried_over(parts, where)
    return [_figure(one, where) for one in measured] + reached + _comparisons(measured, where)


def _retrievers(
    data: Data, models: Models, cache: Path, stack: contextlib.ExitStack, report: Report
) -> Iterator[tuple[Part | None, Retriever]]:
    """Each with the part that it plays; of those that play one part, the last does."""
    ids = [item.id for item in data.items]
    titles = {item.id: item.title for item in data.items}
    yield None, Random(ids)
    yield None, ByWords("BM25, k1 1.2", Bm25(titles))
    store = VectorRetrievalSettings()
    lexical = ByWords(f"BM25, k1 {store.bm25_k1:g}", Bm25(titles, store.bm25_k1, store.bm25_b))
    yield Part.WORDS, lexical
    best: Hybrid | None = None
    for at, name in enumerate((models.base, *models.tuned)):
        encoder = open_encoder(name, models.precision)
        dense = ByVector(encoder, ids, _vectors(encoder, data, cache))
        yield Part.TUNED if at else Part.UNTRAINED, dense
        weight, chosen = _weight(dense, lexical, data)
        report(f"  {encoder.name}: the vectors' share {chosen} is {weight:g}")
        best = Hybrid(dense, lexical, weight)
        yield Part.HYBRID if at else None, best
    if best is None:
        return
    runner = stack.enter_context(asyncio.Runner())
    settings = GatewaySettings()
    weights = {
        BundleKind.BI_ENCODER: settings.rerank_weight_late_interaction,
        BundleKind.CROSS_ENCODER: settings.rerank_weight_cross_encoder,
    }
    for path, part in models.reranking:
        bundle = load_bundle(path)
        scorer = stack.enter_context(_running(bundle, runner))
        texts = {item.id: bundle.item_text(item) for item in data.items}
        cross = bundle.manifest.kind is BundleKind.CROSS_ENCODER
        name = bundle.manifest.name if cross else f"late interaction of {bundle.manifest.name}"
        reranked = Reranked(name, best, scorer, texts, weights[bundle.manifest.kind], runner)
        yield (
            part if cross and models.tuned else None,
            reranked.weighing(_share(reranked, weights[bundle.manifest.kind], data)),
        )


@contextmanager
def _running(bundle: Bundle, runner: asyncio.Runner) -> Iterator[Scorer]:
    # Nothing is kept of the items: what a query takes is what it takes the first time.
    scorer = open_scorer(bundle, cache_bytes=0)
    runner.run(scorer.start())
    try:
        runner.run(scorer.warm_up())
        yield scorer
    finally:
        runner.run(scorer.close())


def _served(data: Data, models: Models, folder: Path) -> Iterator[Measured]:
    # What an earlier run left behind when it failed.
    shutil.rmtree(folder, ignore_errors=True)
    for at, reranker in enumerate((None, *(path for path, _ in models.reranking))):
        with served.served(() if at else data.items, models.best, reranker, folder) as mesh:
            yield _measure(mesh, data)
    shutil.rmtree(folder)


def _vectors(encoder: Encoder, data: Data, cache: Path) -> Vectors:
    texts = [encoder.item_text(item) for item in data.items]
    return KeptEncoder(encoder, Parts(cache / VECTORS)).items(texts)


def _weight(dense: ByVector, lexical: ByWords, data: Data) -> tuple[float, str]:
    """The vectors' share, and who chose it: never the queries that are measured."""
    if _same_queries(data):
        return GatewaySettings().dense_weight, "of the gateway"
    return _tuned_weight(dense, lexical, data), f"chosen on {data.tuning_split}"


def _same_queries(data: Data) -> bool:
    """Whether there are no others to choose by."""
    return data.tuning.queries.keys() == data.split.queries.keys()


def _tuned_weight(dense: ByVector, lexical: ByWords, data: Data) -> float:
    queries = data.tuning.queries
    halves = {key: (dense.search(query, HALF), lexical.search(query, HALF)) for key, query in queries.items()}

    def ndcg(weight: float) -> float:
        how = Linear(weight, 1 - weight)
        found = {key: fused(*both, how) for key, both in halves.items()}
        values = per_query(data.tuning.qrels, found, data.grades, (NDCG_10,))[NDCG_10]
        return estimate(list(values.values())).mean

    return max(WEIGHTS, key=ndcg)


def _share(reranked: Reranked, of_the_gateway: float, data: Data) -> float:
    """The re-ranker's share in the score, chosen as the vectors' is."""
    if _same_queries(data):
        return of_the_gateway
    queries = dict(sorted(data.tuning.queries.items(), key=lambda each: digest(each[0]))[:_SHARE_QUERIES])
    qrels = {key: data.tuning.qrels[key] for key in queries}
    found = {key: reranked.by_share(query, HALF, SHARES) for key, query in queries.items()}

    def ndcg(at: int) -> float:
        values = per_query(qrels, {key: runs[at] for key, runs in found.items()}, data.grades, (NDCG_10,))[NDCG_10]
        return estimate(list(values.values())).mean

    return SHARES[max(range(len(SHARES)), key=ndcg)]


def _measure(retriever: Retriever, data: Data) -> Measured:
    split = data.split
    found, taken = {}, []
    for key, query in split.queries.items():
        started = time.perf_counter()
        found[key] = retriever.search(query, DEPTH)
        taken.append((time.perf_counter() - started) * 1000)
    by_query = dict(per_query(split.qrels, found, data.grades))
    pairs = _judged(retriever, split)
    auc = None
    if pairs is not None:
        by_query[JUDGED_NDCG_10] = judged_ndcg(split.qrels, pairs, data.grades)
        judged = [
            (grade >= data.grades.relevant, pairs[key][item])
            for key, items in split.qrels.items()
            for item, grade in items.items()
        ]
        auc = float(roc_auc_score([label for label, _ in judged], [value for _, value in judged]))
    return Measured(retriever.name, by_query, auc, statistics.median(taken))


def _timed(ways: Mapping[Part, Retriever], data: Data) -> dict[Part, float]:
    """What a cross-encoder and one distilled from it take to put the first `RERANKED` in order: milliseconds, medians
    over the same queries, in turns. Nothing where one of the two is missing."""
    if not ways.keys() >= goals.DISTILLATION:
        return {}
    taken: dict[Part, list[float]] = {Part.CROSS_ENCODER: [], Part.DISTILLED: []}
    for query in list(data.split.queries.values())[:_TIMED_QUERIES]:
        found = list(ways[Part.HYBRID].search(query, RERANKED))
        for part, times in taken.items():
            started = time.perf_counter()
            ways[part].judge(query, found)
            times.append((time.perf_counter() - started) * 1000)
    return {part: statistics.median(times) for part, times in taken.items()}


def _judged(retriever: Retriever, split: Split) -> dict[str, dict[str, float]] | None:
    found = {}
    for key, query in split.queries.items():
        ids = list(split.qrels[key])
        scores = retriever.judge(query, ids)
        if scores is None:
            return None
        found[key] = dict(zip(ids, scores, strict=True))
    return found


def _line(one: Measured) -> str:
    means = "  ".join(f"{measure} {one.mean(measure):.4f}" for measure in one.by_query)
    auc = "" if one.auc is None else f"  AUC {one.auc:.4f}"
    return f"  {one.name:<60} {means}{auc}  {one.p50_ms:.1f} ms"


def _figure(one: Measured, where: str) -> Figure:
    within = {measure: estimate(list(values.values())) for measure, values in one.by_query.items()}
    first = within[NDCG_10]
    raw: dict[str, Any] = {
        **{name: {"mean": found.mean, "low": found.low, "high": found.high} for name, found in within.items()},
        "auc": one.auc,
        "p50_ms": one.p50_ms,
        "queries": first.queries,
    }
    told = [f"{name} {found.mean:.4f}" for name, found in within.items() if name in ("mrr@10", RECALL, JUDGED_NDCG_10)]
    told += [] if one.auc is None else [f"AUC {one.auc:.4f}"]
    note = f"[{first.low:.4f}, {first.high:.4f}]; {'; '.join(told)}; {one.p50_ms:.1f} ms a query"
    return Figure(Goal(f"{where}: {NDCG_10}, {one.name}", None), first.mean, raw, note)


def _comparisons(measured: Sequence[Measured], where: str) -> list[Figure]:
    """Each way against every one before it but the random order, paired."""
    rows = []
    for at, one in enumerate(measured):
        for other in measured[1:at]:
            for measure in (NDCG_10, RECALL):
                found = one.against(other, measure)
                rows.append(
                    Figure(
                        Goal(f"{where}: {measure}, {one.name} ÷ {other.name}", None),
                        one.times(other, measure),
                        {"difference": found.mean, "low": found.low, "high": found.high, "p_value": found.p_value},
                        f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}], p {found.p_value:.4f}, "
                        f"{found.wins} better, {found.losses} worse",
                    )
                )
    return rows
