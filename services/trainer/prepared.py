"""A prepared data set on disk: what `prepare` writes, and what every later job reads.

<folder>/
  prepared.json                           what was read, dropped and written, with content hashes
  items.parquet                           the catalogue
  train.parquet valid.parquet test.parquet   key, query, item_id, grade; sorted by key and item_id; where there are any
"""

import hashlib
import json
from collections.abc import Iterator
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


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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


class PreparedReport(_Closed):
    """The whole of `prepared.json`."""

    format: int = 1
    grades: Grades
    sources: dict[str, FileEntry]
    """Files that were read, by name."""
    catalogue: dict[str, int]
    read: int
    """Judgements that were read."""
    dropped: dict[str, int]
    """Judgements by reason."""
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
