"""Task "recommend": the running services beside the methods that everybody knows, on the same folds."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.figures import Figure, Goal
from tests.evaluation import methods, shop
from tests.evaluation.datasets import sets
from tests.evaluation.datasets.interactions import Dataset, Fold
from tests.evaluation.metrics import Scores, bootstrap, score

Report = Callable[[str], None]

MEASURE = "ndcg@10"
USER_MODELS = ("WEIGHTED_MEAN", "TEXT")
SERVICE = {model: f"service, {model}" for model in USER_MODELS}
COLD_GOAL = 2.0
"""A wide margin: popularity knows nothing of new items."""


def run(names: Sequence[str], data: Path, sample: int | None, folder: Path, report: Report) -> list[Figure]:
    """Measures the sets called `names`, asking for `sample` users of each fold; shops are laid out below `folder`."""
    figures: list[Figure] = []
    for name in names:
        try:
            dataset = sets.load(name, data)
        except FileNotFoundError as error:
            figures.append(
                Figure(Goal(f"{name}: {MEASURE}", None), None, note=f"the set is not there: {error.filename}")
            )
            continue
        test, cold = (_sampled(fold, sample) for fold in (dataset.test, dataset.cold))
        figures += _figures(f"{name}, test", *_measured(dataset, test, folder, report), _WARM_GOALS)
        figures += _figures(f"{name}, new items", *_measured(dataset, cold, folder, report), _COLD_GOALS)
    return figures


def _sampled(fold: Fold, sample: int | None) -> Fold:
    if sample is None or sample >= len(fold.users):
        return fold
    return fold.of(np.random.default_rng(0).choice(fold.users, sample, replace=False).tolist())


def _measured(dataset: Dataset, fold: Fold, folder: Path, report: Report) -> tuple[dict[str, Scores], dict[str, Any]]:
    """The scores of every method, and what else is worth knowing of the service's."""
    what = "new items" if fold.is_cold else "test"
    report(f"{dataset.name}, {what}: {len(fold.history)} interactions, {len(fold.users)} users asked for")
    scores: dict[str, Scores] = {}
    for name, method in methods.TUNED[dataset.name].items():
        # What learns from who took what has nothing to say of items that nobody took.
        if not fold.is_cold or name == "popularity":
            scores[name] = method.scores(fold)
            report(_line(name, scores[name]))
    more: dict[str, Any] = {}
    home = folder / f"{dataset.name}-{'new' if fold.is_cold else 'test'}"
    # What an earlier run left behind when it failed, to be looked into.
    shutil.rmtree(home, ignore_errors=True)
    with shop.running(dataset, fold, home) as running:
        for model, name in SERVICE.items():
            answers = running.recommend(model)
            scores[name] = score(fold, answers.lists)
            more[name] = {"degraded": answers.degraded, "median_ms": answers.median_ms}
            report(f"{_line(name, scores[name])}  {more[name]}")
    shutil.rmtree(home)
    return scores, more


def _line(name: str, scores: Scores) -> str:
    means = "  ".join(f"{measure} {values.mean():.4f}" for measure, values in scores.by_user.items())
    return f"  {name:<24} {means}  coverage {scores.coverage:.3f}  novelty {scores.novelty:.2f}"


_WARM_GOALS: Mapping[str, float] = {"popularity": 1.0, "item-kNN": 1.0, "ALS": 1.0, "BPR": 1.0}
_COLD_GOALS: Mapping[str, float] = {"popularity": COLD_GOAL}


def _figures(what: str, scores: dict[str, Scores], more: dict[str, Any], goals: Mapping[str, float]) -> list[Figure]:
    rows = [
        Figure(
            Goal(f"{what}: {MEASURE}, {name}", None),
            one.interval(MEASURE).mean,
            {**one.as_json(), **more.get(name, {})},
            _note(one),
        )
        for name, one in scores.items()
    ]
    ours = scores[SERVICE[USER_MODELS[0]]]
    for name, goal in goals.items():
        theirs = scores[name]
        ahead = bootstrap(ours.by_user[MEASURE] - theirs.by_user[MEASURE])
        ratio = ours.interval(MEASURE).mean / max(theirs.interval(MEASURE).mean, 1e-9)
        rows.append(
            Figure(
                Goal(f"{what}: {MEASURE}, service / {name}", goal),
                ratio,
                {"difference": {"mean": ahead.mean, "low": ahead.low, "high": ahead.high}},
                f"ahead by {ahead}",
            )
        )
    return rows


def _note(scores: Scores) -> str:
    told = "; ".join(f"{name} {scores.by_user[name].mean():.4f}" for name in scores.by_user if name != MEASURE)
    within = scores.interval(MEASURE)
    return (
        f"[{within.low:.4f}, {within.high:.4f}]; {told}; coverage {scores.coverage:.3f}; novelty {scores.novelty:.1f}"
    )
