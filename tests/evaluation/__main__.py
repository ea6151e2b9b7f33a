"""Measures quality, prints a table, writes build/eval/<task>.json. Never a test: it asserts nothing."""

import argparse
import sys
from pathlib import Path

from deploy.local.spec import DEFAULT_BUNDLE
from shared.bundles import load_bundle
from tests.benchmarks import figures
from tests.benchmarks.figures import ROOT
from tests.evaluation import recommend, texts, tuning
from tests.evaluation.datasets import sets

OUT = ROOT / "build" / "eval"
TASKS = ("recommend",)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.evaluation", description=__doc__)
    parser.add_argument("--task", choices=TASKS, default="recommend", help="what to measure (default: recommend)")
    parser.add_argument("--dataset", choices=sets.NAMES, action="append", help="this set (default: all)")
    parser.add_argument("--data", type=Path, default=sets.DATA, help="where sets lie that are not fetched")
    parser.add_argument("--users", type=int, metavar="N", help="ask for a sample of N users of each fold")
    parser.add_argument("--tune", nargs="*", metavar="PART", help="choose settings on the validation folds instead")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    given = _arguments()
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
