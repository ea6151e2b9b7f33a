"""The small set of (query, positive) pairs an export is measured on."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from services.trainer.errors import JobError

BUILT_IN = Path(__file__).parent / "data" / "validation.jsonl"
"""The project's own pairs, over the aisles of a general shop."""


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Queries and the item text each should find; every other pair's item is a distractor."""

    name: str
    queries: tuple[str, ...]
    positives: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """All of them, queries first."""
        return self.queries + self.positives


def read_validation(path: Path = BUILT_IN) -> ValidationSet:
    """JSON lines of `{"query": …, "positive": …}`; other keys are ignored. At least ten pairs."""
    if not path.is_file():
        raise JobError(f"--validation {path}: no such file")
    pairs = []
    content = path.read_bytes()
    for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            pairs.append((str(row["query"]), str(row["positive"])))
        except (ValueError, KeyError, TypeError) as error:
            raise JobError(f'{path}:{number}: want {{"query": …, "positive": …}}, got {error!r}') from error
    if len(pairs) < 10:
        raise JobError(f"{path} has {len(pairs)} pairs; ten are the least that says anything about ranking")
    name = f"{path.name} sha256:{hashlib.sha256(content).hexdigest()[:16]} ({len(pairs)} pairs)"
    return ValidationSet(name, tuple(q for q, _ in pairs), tuple(p for _, p in pairs))


def read_means(path: Path) -> dict[str, float]:
    """The model's means by measure, of an `evaluation.json`."""
    try:
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        kinds = {name: float(model["classification"][name]) for name in ("roc_auc", "average_precision", "f1")}
        return {**{name: float(value["mean"]) for name, value in model["measures"].items()}, **kinds}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(f"--evaluation {path}: is not an evaluation.json of the job evaluate ({error!r})") from error
