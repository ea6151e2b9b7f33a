"""Measures quality, prints a table, writes build/eval/<task>.json. Never a test: it asserts nothing."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from deploy.local.spec import DEFAULT_BUNDLE
from services.trainer.errors import JobError
from services.trainer.prepared import PreparedSet, open_prepared
from shared.bundles import Precision, load_bundle
from tests.benchmarks import figures
from tests.benchmarks.figures import ROOT
from tests.evaluation import recommend, search, texts, tuning
from tests.evaluation.datasets import judged, sets

OUT = ROOT / "build" / "eval"
PREPARED = ROOT / "build" / "data"
TASKS = ("recommend", "search")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.evaluation", description=__doc__)
    parser.add_argument("--task", choices=TASKS, default="recommend", help="what to measure (default: recommend)")
    parser.add_argument(
        "--dataset", choices=(*sets.NAMES, *judged.NAMES), action="append", help="this set (default: all of the task's)"
    )
    parser.add_argument("--data", type=Path, default=sets.DATA, help="where sets lie that are not fetched")
    parser.add_argument("--users", type=int, metavar="N", help="ask for a sample of N users of each fold")
    parser.add_argument("--tune", nargs="*", metavar="PART", help="choose settings on the validation folds instead")
    found = parser.add_argument_group("task search")
    found.add_argument("--prepared", type=Path, help="a set of your own that the job `prepare` made, and no other")
    found.add_argument("--split", default="test", help="(default: %(default)s)")
    found.add_argument("--base", default=str(DEFAULT_BUNDLE), help="zero-shot (%(default)s)")
    found.add_argument("--model", action="append", default=[], help="fine-tuned bi-encoder; repeat for several")
    found.add_argument("--reranker", action="append", default=[], type=Path, help="cross-encoder bundle; repeat")
    found.add_argument(
        "--distilled", action="append", default=[], type=Path, help="bundle distilled from the last --reranker; repeat"
    )
    found.add_argument("--served", action="store_true", help="also through the running mesh: minutes of loading")
    found.add_argument("--precision", type=Precision, choices=list(Precision), default=Precision.INT8)
    given = parser.parse_args()
    names = judged.NAMES if given.task == "search" else sets.NAMES
    if strange := set(given.dataset or ()) - set(names):
        parser.error(f"--dataset {', '.join(sorted(strange))}: task {given.task} has {', '.join(names)}")
    return given


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _search(given: argparse.Namespace) -> int:
    models = search.Models(given.base, given.model, given.reranker, given.precision, given.served, given.distilled)
    found: list[figures.Figure] = []
    try:
        for prepared in _judged(given):
            _say(f"{prepared.path.name}:")
            found += search.run(prepared, given.split, models, OUT, _say)
    except JobError as error:
        sys.stderr.write(f'{error}\nhow to prepare a set: docs/training.md, "Measuring on a judged shop"\n')
        return 1
    if not found:
        sys.stderr.write("nothing was measured: see --data and --prepared\n")
        return 1
    # A set of one's own, or one of several, must not take the place of all.
    name = "search" if given.prepared is None and given.dataset is None else "search-part"
    path = figures.write(name, found, folder=OUT, kind="evaluation", split=given.split)
    _say(f"written: {Path(path).relative_to(ROOT)}")
    return 0


def _judged(given: argparse.Namespace) -> Iterator[PreparedSet]:
    if given.prepared is not None:
        yield open_prepared(given.prepared)
        return
    for name in given.dataset or judged.NAMES:
        try:
            yield judged.prepared(name, given.data, PREPARED)
        except FileNotFoundError as error:
            _say(f"{name} is left out: {error}")


def main() -> int:
    given = _arguments()
    if given.task == "search":
        return _search(given)
    names = given.dataset or list(sets.NAMES)
    if given.tune is not None:
        bundle = load_bundle(DEFAULT_BUNDLE)
        for name in names:
            dataset = sets.load(name, given.data)
            vectors = texts.vectors(bundle, [bundle.item_text(item) for item in dataset.items], OUT)
            tuning.tune(dataset, vectors, _say, given.tune)
        return 0
    measured = recommend.run(names, given.data, given.users, OUT / "shops", _say)
    # A sample or one set must not take the place of the whole.
    whole = given.users is None and given.dataset is None
    name = given.task if whole else f"{given.task}-part"
    path = figures.write(name, measured, folder=OUT, kind="evaluation", users=given.users, datasets=names)
    _say(f"written: {Path(path).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
