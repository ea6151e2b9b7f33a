"""The small set of (query, positive) pairs an export is measured on."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.trainer.errors import JobError
from services.trainer.prepared import PreparedSet, by_chance, open_prepared
from shared.bundles import ItemTemplate, render

BUILT_IN = Path(__file__).parent / "data" / "validation.jsonl"
"""The project's own pairs, over the aisles of a general shop."""
_LEAST = 10
"""Pairs that say anything about ranking."""
_MOST = 50
"""Of a prepared set; as many as are built in."""


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Queries and the item text each should find; every other pair's item is a distractor."""

    name: str
    digest: str
    """Of what it was read from."""
    queries: tuple[str, ...]
    positives: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """All of them, queries first."""
        return self.queries + self.positives


def read_validation(path: Path, template: ItemTemplate) -> ValidationSet:
    """A file of JSON lines of `{"query": …, "positive": …}`, other keys ignored; or a prepared set, of which queries of
    the `valid` split are taken, each with its best item as `template` has it. At least ten pairs."""
    if path.is_dir():
        prepared = open_prepared(path)
        return _of(path, prepared.content_hash, _shops_own(prepared, template))
    if not path.is_file():
        raise JobError(f"--validation {path}: no such file")
    content = path.read_bytes()
    return _of(path, hashlib.sha256(content).hexdigest(), _lines(path, content))


def validation_of(prepared: PreparedSet) -> Path:
    """What to measure a model of this shop on: the set itself, or the built-in pairs where it has too few."""
    judged = prepared.split("valid")
    queries = judged.filter(judged["grade"] >= prepared.report.grades.relevant)["key"].n_unique()
    return prepared.path if queries >= _LEAST else BUILT_IN


def _of(path: Path, digest: str, pairs: Sequence[tuple[str, str]]) -> ValidationSet:
    if len(pairs) < _LEAST:
        raise JobError(f"{path} has {len(pairs)} pairs; {_LEAST} are the least that says anything about ranking")
    name = f"{path.name} sha256:{digest[:16]} ({len(pairs)} pairs)"
    return ValidationSet(name, digest, tuple(q for q, _ in pairs), tuple(p for _, p in pairs))


def _shops_own(prepared: PreparedSet, template: ItemTemplate) -> list[tuple[str, str]]:
    relevant, best = prepared.report.grades.relevant, dict[str, tuple[str, str]]()
    judged = prepared.split("valid").sort("grade", "item_id", descending=[True, False])
    for key, query, item, grade in judged.select("key", "query", "item_id", "grade").iter_rows():
        if grade >= relevant:
            best.setdefault(key, (query, item))
    chosen = [best[key] for key in by_chance(best, seed=0)[:_MOST]]
    wanted = {item for _, item in chosen}
    texts = {item.id: render(template, item) for item in prepared.items() if item.id in wanted}
    return [(query, texts[item]) for query, item in chosen]


def _lines(path: Path, content: bytes) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            pairs.append((str(row["query"]), str(row["positive"])))
        except (ValueError, KeyError, TypeError) as error:
            raise JobError(f'{path}:{number}: want {{"query": …, "positive": …}}, got {error!r}') from error
    return pairs


def read_means(path: Path) -> dict[str, float]:
    """The model's means by measure, of an `evaluation.json`; without those that are no number."""
    try:
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        kinds = {name: float(model["classification"][name]) for name in ("roc_auc", "average_precision", "f1")}
        means = {**{name: float(value["mean"]) for name, value in model["measures"].items()}, **kinds}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(f"--evaluation {path}: is not an evaluation.json of the job evaluate ({error!r})") from error
    # A measure that no query of the set says anything about has no mean, and JSON no way to say so.
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}
