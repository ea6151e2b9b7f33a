"""What a model that goes on learning is shown: new judgements, and a sample of those it has learnt."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from services.trainer.prepare.job import split_counts
from services.trainer.prepare.judgements import KEY
from services.trainer.prepared import ITEMS, REPORT, PreparedReport, PreparedSet, by_chance
from services.trainer.record import command_line
from shared.bundles.files import hash_file

_SAME = [KEY, "item_id", "grade"]


@dataclass(frozen=True)
class Material:
    """Rows of the training split: key, query, item_id, grade."""

    fresh: pl.DataFrame
    """Judged, or judged otherwise, since."""
    replayed: pl.DataFrame
    """Learnt before and still true."""


def choose(now: PreparedSet, learnt: Path | None, replay: float, seed: int) -> Material:
    """`learnt`: folder with the splits that the live model has learnt; None: it has learnt nothing of this shop.

    Whole queries are replayed, until their rows are `replay` times those that are new. Which, the seed decides.
    """
    train = now.split("train")
    if learnt is None:
        return Material(train, train.clear())
    before = pl.read_parquet(learnt / "train.parquet").select(_SAME)
    fresh = train.join(before, on=_SAME, how="anti")
    known = train.join(before, on=_SAME, how="semi")
    sizes = dict(known.group_by(KEY).len().iter_rows())
    wanted, taken = replay * fresh.height, list[str]()
    for key in by_chance(sizes, seed):
        if wanted <= 0:
            break
        taken.append(key)
        wanted -= sizes[key]
    return Material(fresh, known.filter(pl.col(KEY).is_in(taken)))


def write(material: Material, now: PreparedSet, out: Path) -> PreparedSet:
    """A prepared set to train on: `material`, validated and tested on what `now` is."""
    out.mkdir(parents=True, exist_ok=True)
    (out / REPORT).unlink(missing_ok=True)
    train = pl.concat([material.fresh, material.replayed]).sort(KEY, "item_id")
    train.write_parquet(out / "train.parquet", compression="zstd")
    others = [name for name in now.report.splits if name != "train"]
    for file in (ITEMS, *(f"{name}.parquet" for name in others)):
        shutil.copyfile(now.path / file, out / file)
    report = now.report.model_copy(
        update={
            "splits": {**now.report.splits, "train": split_counts(train, now.report.grades)},
            "files": {name: hash_file(out / name) for name in now.report.files},
            "command": command_line(),
        }
    )
    (out / REPORT).write_text(PreparedReport.model_dump_json(report, indent=2) + "\n", encoding="utf-8")
    return PreparedSet(out, report)


def remember(now: PreparedSet, folder: Path) -> None:
    """Keeps in `folder` what a model has learnt by now, whole or not at all."""
    staged = folder.with_name(f".{folder.name}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name in now.report.splits:
        shutil.copyfile(now.path / f"{name}.parquet", staged / f"{name}.parquet")
    (staged / "data.txt").write_text(f"{now.content_hash}\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)


def learnt_data(folder: Path) -> str | None:
    """The content hash of the prepared set that was remembered in `folder`; None where none was."""
    try:
        return (folder / "data.txt").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
