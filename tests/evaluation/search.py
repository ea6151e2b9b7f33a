"""Search, measured: BM25, bi-encoders, and both fused as `vector_retrieval` fuses them, on a prepared set.

    python -m tests.evaluation.search --data build/data/home_depot --base minilm --model build/models/mine

Prints the table of docs/training.md and writes `build/eval/search_models.json`.
"""

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from services.trainer.evaluate.encode import Encoder, Vectors, open_encoder
from services.trainer.evaluate.measures import MEASURES, Run, per_query
from services.trainer.evaluate.score import DEPTH, JUDGED_NDCG_10, Data, judged_ndcg, score
from services.trainer.evaluate.statistics import compare, estimate
from services.trainer.prepared import open_prepared
from services.vector_retrieval.fusion import Found, Fusion, ReciprocalRank, Weighted, fuse
from shared.bundles import Precision
from tests.evaluation.lexical import Bm25, best

OUT = Path("build/eval/search_models.json")
HALF = 200
"""Hits that each half gives to a fusion."""


class Cached:
    """An encoder that keeps the vectors of a catalogue beside the results: minutes of a CPU, and always the same."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.name, self.version = encoder.name, encoder.version
        self.item_text, self.queries = encoder.item_text, encoder.queries

    def items(self, texts: Sequence[str]) -> Vectors:
        digest = hashlib.sha256("\0".join((self.name, *texts)).encode()).hexdigest()[:16]
        file = OUT.parent / f"vectors-{digest}.npy"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, self._encoder.items(texts))
        vectors: Vectors = np.load(file)
        return vectors


class Row:
    """One way of searching: its measures a query, and AUC over judged pairs."""

    def __init__(self, name: str, measures: Mapping[str, Mapping[str, float]], auc: float | None) -> None:
        self.name, self.measures, self.auc = name, measures, auc

    def line(self) -> str:
        cells = [f"{estimate(list(values.values())).mean:.4f}" for values in self.measures.values()]
        return f"| {self.name} | {' | '.join(cells)} | {'' if self.auc is None else f'{self.auc:.4f}'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--base", default="minilm", help="zero-shot")
    parser.add_argument("--model", action="append", default=[], help="fine-tuned; repeat for several")
    parser.add_argument("--precision", type=Precision, default=Precision.INT8)
    arguments = parser.parse_args()
    data = Data(open_prepared(arguments.data), arguments.split)
    lexical = Bm25({item.id: item.title for item in data.items})
    bm25 = {key: lexical.scores(query) for key, query in data.split.queries.items()}
    words = {key: best(found, DEPTH) for key, found in bm25.items()}
    rows = [_row("random", data, {}, _pairs(data, lambda key, item: random.Random(f"{key} {item}").random()))]
    rows.append(_row("BM25", data, words, _pairs(data, lambda key, item: bm25[key].get(item, 0.0))))
    for name in (arguments.base, *arguments.model):
        scored = score(Cached(open_encoder(name, arguments.precision)), data)
        rows.append(Row(scored.name, scored.measures, scored.classification.values["roc_auc"]))
        for label, how in (("0.7 / 0.3", Weighted(0.7, 0.3)), ("RRF(60)", ReciprocalRank())):
            fused = {key: _fused(scored.run[key], words[key], how) for key in data.split.queries}
            rows.append(_row(f"{scored.name} + BM25, {label}", data, fused, None))
    _write(rows, arguments.split)


def _row(name: str, data: Data, run: Run, pairs: Run | None) -> Row:
    measures = dict(per_query(data.split.qrels, run, data.grades))
    if pairs is None:
        return Row(name, measures, None)
    measures[JUDGED_NDCG_10] = judged_ndcg(data.split.qrels, pairs, data.grades)
    judged = [
        (grade >= data.grades.relevant, pairs[key][item])
        for key, items in data.split.qrels.items()
        for item, grade in items.items()
    ]
    return Row(name, measures, float(roc_auc_score([label for label, _ in judged], [value for _, value in judged])))


def _pairs(data: Data, value: Callable[[str, str], float]) -> Run:
    return {key: {item: value(key, item) for item in items} for key, items in data.split.qrels.items()}


def _fused(dense: Mapping[str, float], lexical: Mapping[str, float], how: Fusion) -> dict[str, float]:
    halves = ([Found(item, one, "") for item, one in list(half.items())[:HALF]] for half in (dense, lexical))
    return {candidate.id: candidate.score for candidate in fuse(*halves, how)}


def _write(rows: list[Row], split: str) -> None:
    say = sys.stdout.write
    say(f"| {split} | {' | '.join((*MEASURES, JUDGED_NDCG_10))} | AUC |\n|---|{'---|' * (len(MEASURES) + 2)}\n")
    for row in rows:
        say(row.line() + "\n")
    found = []
    for at, row in enumerate(rows):
        tests = {
            f"{measure} against {other.name}": compare(list(row.measures[measure].values()), list(values.values()))
            for other in rows[1:at]
            for measure, values in other.measures.items()
            if measure in ("ndcg@10", "recall@100")
        }
        for name, result in tests.items():
            interval = f"[{result.low:+.4f}, {result.high:+.4f}]"
            say(f"{row.name}: {name}: {result.mean:+.4f} {interval} p {result.p_value:.4f}\n")
        found.append(
            {
                "name": row.name,
                "auc": row.auc,
                **{name: estimate(list(values.values())).mean for name, values in row.measures.items()},
                "p": {name: result.p_value for name, result in tests.items()},
            }
        )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
