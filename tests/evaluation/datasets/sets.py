"""Every set by its name, and where it lies."""

from pathlib import Path

from tests.benchmarks.figures import ROOT
from tests.evaluation.datasets import movielens, online_retail
from tests.evaluation.datasets.interactions import Dataset

WHEELS = ROOT / "build" / "datasets"
DATA = ROOT.parent / "shared" / "data"
NAMES = ("movielens", "online_retail")


def load(name: str, data: Path = DATA) -> Dataset:
    """The set called `name`; raises `FileNotFoundError` where it must lie in `data` and does not."""
    if name == "movielens":
        return movielens.load(WHEELS)
    return online_retail.load(data / name)
