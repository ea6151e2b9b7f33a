"""A prepared data set on disk: what `prepare` writes, and what every later job reads.

<folder>/
  prepared.json                           what was read, dropped and written, with content hashes
  items.parquet                           the catalogue
  train.parquet valid.parquet test.parquet   key, query, item_id, grade; sorted by key and item_id; where there are any
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from services.trainer.errors import JobError
from shared.bundles import FileEntry
from shared.bundles.files import hash_file
from shared.items import Item

if TYPE_CHECKING:
    import polars as pl

REPORT = "prepared.json"
ITEMS = "items.parquet"
SPLITS = ("train", "valid", "test")
"""In the order of time, where time decides."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


MOST_GRADES = 20
"""From the lowest grade to the highest: trec_eval, which measures, has gains of 32 bits, here in thousandths."""


class Grades(_Closed):
    """The scale of the grades."""

    lowest: float
    highest: float
    relevant: float
    """From this grade on an item counts as relevant where a measure knows only yes and no."""

    def gain(self, grade: float) -> float:
        """What an item of `grade` is worth in NDCG: 0 for the lowest, growing exponentially (Burges et al. 2005)."""
        return float(2.0 ** (grade - self.lowest) - 1.0)


class SplitCounts(_Closed):
    """How much a split holds."""

    judgements: int
    queries: int
    items: int
    relevant: int
    """Judgements of a relevant grade."""


class BehaviourReport(_Closed):
    """What became of a behaviour log."""

    events: int
    dropped: dict[str, int]
    """Events by reason."""
    undoing: int
    """Events that took something back: used, and dropped with what they took back."""
    pairs: int
    """Of query and item, that the rest speaks of."""
    pairs_dropped: dict[str, int]
    """Pairs by reason."""
    propensities: list[float]
    """By place in the list, the largest 1; places further down are taken for the last."""
    propensities_from: int
    """Times that items were taken which told them; 0 where they were assumed."""
    average_value: float
    """What a shopper who sees an item does with it, in weights of `shared.behaviour`."""
    top_value: float
    """The same for pairs that begin to have the highest grade."""
    begins: dict[str, str]
    """When each split's time begins (ISO 8601), where the log was split by time."""


class PreparedReport(_Closed):
    """The whole of `prepared.json`."""

    format: int = 1
    grades: Grades
    sources: dict[str, FileEntry]
    """Files that were read, by name."""
    catalogue: dict[str, int]
    read: int
    """Judgements that were read from files."""
    dropped: dict[str, int]
    """Judgements by reason."""
    behaviour: BehaviourReport | None = None
    """Where the log was judged from; its pairs are in the splits, and not in `read`."""
    splits: dict[str, SplitCounts]
    files: dict[str, FileEntry]
    seed: int
    command: str


@dataclass(frozen=True)
class PreparedSet:
    """Opened by `open_prepared`; files are read when asked for."""

    path: Path
    report: PreparedReport

    def split(self, name: str) -> "pl.DataFrame":
        """Judgements of a split: key, query, item_id, grade. Raises `JobError` where there is none of that name."""
        import polars as pl

        if name not in self.report.splits:
            there = ", ".join(self.report.splits) or "a catalogue alone, which only the job pretrain learns from"
            raise JobError(f"{self.path} has no split {name}; it has {there}")
        return pl.read_parquet(self.path / f"{name}.parquet")

    def items(self) -> Iterator[Item]:
        """Every item of the catalogue."""
        from services.trainer.prepare.items import read_items

        return read_items(self.path / ITEMS)

    @cached_property
    def content_hash(self) -> str:
        """Over all files, 64 hex digits: same hash, same data."""
        entries = {name: entry.sha256 for name, entry in sorted(self.report.files.items())}
        return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def by_chance(keys: Iterable[str], seed: int) -> list[str]:
    """`keys` in an order that chance decides for each by itself: of more keys, the first are those of fewer, and some
    that came to stand between them."""
    return sorted(keys, key=lambda key: hashlib.blake2b(f"{seed} {key}".encode()).digest())


def open_prepared(path: Path) -> PreparedSet:
    """Raises `JobError` when `path` holds no prepared set, or one whose files were changed since."""
    file = path / REPORT
    if not file.is_file():
        raise JobError(f"{path} has no {REPORT}: make it with `python -m services.trainer prepare --out {path} …`")
    try:
        report = PreparedReport.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise JobError(
            f"{file} is not a report of this version ({error.error_count()} faults): prepare again"
        ) from error
    for name, entry in report.files.items():
        if not (path / name).is_file() or hash_file(path / name) != entry:
            raise JobError(f"{path / name} is not what {REPORT} says: prepare again")
    return PreparedSet(path, report)
