"""Judged shops, made ready by the trainer's own job from what lies in a folder of data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.trainer.prepare.job import prepare
from services.trainer.prepare.options import PrepareOptions
from services.trainer.prepared import REPORT, Grades, PreparedSet, open_prepared

_CATALOGUE = "products.parquet"


@dataclass(frozen=True)
class _Shop:
    grades: Grades
    splits: Mapping[str, str] = field(default_factory=dict)
    """Files by split."""
    judgements: str = ""
    """A file to measure on alone."""
    drop_leaks: bool = False


_SHOPS = {
    "home_depot": _Shop(
        Grades(lowest=1, highest=3, relevant=2.67),
        splits={name: f"qrels_{name}.csv" for name in ("train", "valid", "test")},
        drop_leaks=True,
    ),
    "icecat": _Shop(
        Grades(lowest=0, highest=3, relevant=2),
        judgements="qrels.csv",
    ),
}
NAMES = tuple(_SHOPS)


def prepared(name: str, data: Path, folder: Path) -> PreparedSet:
    """The set called `name` in `folder`, made there from `data` the first time. Raises `FileNotFoundError` where it is
    in neither."""
    shop, out, files = _SHOPS[name], folder / name, data / name
    if (out / REPORT).is_file():
        return open_prepared(out)
    if not (files / _CATALOGUE).is_file():
        raise FileNotFoundError(f"{files / _CATALOGUE} is not there")
    return prepare(
        PrepareOptions(
            files / _CATALOGUE,
            out,
            judgements=[files / shop.judgements] if shop.judgements else (),
            splits={split: files / file for split, file in shop.splits.items()},
            grades=shop.grades,
            shares={"test": 1.0},
            drop_leaks=shop.drop_leaks,
        )
    )
