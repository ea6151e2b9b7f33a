"""The study: what was tried, kept in a SQLite file, so that a search which was cut short goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

FILE = "study.db"
_FOLDER, _WHY = "folder", "why"
_RANDOM_TRIALS = 5
"""Drawn at random before TPE has something to go by. Optuna's 10 are made for hundreds of trials, not for a dozen."""


class Study:
    """Trials one after another, each chosen by what the ones before it gave.

    Chosen by TPE (Bergstra et al. 2011), stopped by the median rule (Golovin et al., "Google Vizier", 2017).
    """

    def __init__(self, folder: Path, space: Mapping[str, BaseDistribution], seed: int, full_trials: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._seed = dict(space), seed
        self._study = optuna.create_study(
            storage=f"sqlite:///{folder / FILE}",
            study_name="finetune-encoder",
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=full_trials, n_min_trials=2),
            load_if_exists=True,
        )
        for left in self._study.get_trials(states=(TrialState.RUNNING,)):
            self._study.tell(left.number, state=TrialState.FAIL)
            self._study.enqueue_trial(left.params, user_attrs={_FOLDER: folder_of(left)})

    def ask(self) -> Trial:
        """The next trial, its parameters chosen; first of all the one that was cut short."""
        # Seeded anew for each: a search that was cut short chooses as it would have done.
        self._study.sampler = optuna.samplers.TPESampler(
            seed=self._seed + len(self.finished()), n_startup_trials=_RANDOM_TRIALS
        )
        return self._study.ask(self._space)

    def complete(self, trial: Trial, value: float) -> None:
        """It ran to its end."""
        self._study.tell(trial, value)

    def prune(self, trial: Trial) -> None:
        """It was worse than the others and was stopped."""
        self._study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial, why: str) -> None:
        """These parameters cannot be trained with."""
        trial.set_user_attr(_WHY, why)
        self._study.tell(trial, state=TrialState.FAIL)

    def finished(self) -> list[FrozenTrial]:
        """Trials that count, in their order; those that were cut short do not."""
        return [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            or (trial.state is TrialState.FAIL and why_failed(trial))
        ]

    def best(self) -> FrozenTrial | None:
        """None while no trial ran to its end."""
        complete = [trial for trial in self.finished() if trial.state is TrialState.COMPLETE]
        return max(complete, key=lambda trial: trial.value or 0.0, default=None)


def folder_of(trial: Trial | FrozenTrial) -> str:
    """Name of the trial's folder; one that goes on after it was cut short has its first number's."""
    return str(trial.user_attrs.get(_FOLDER, f"{trial.number:03}"))


def why_failed(trial: FrozenTrial) -> str:
    """Empty for a trial that did not fail."""
    return str(trial.user_attrs.get(_WHY, ""))


def outcome(trial: FrozenTrial) -> dict[str, Any]:
    """What a finished trial was, as JSON values."""
    seconds = (trial.datetime_complete - trial.datetime_start).total_seconds() if trial.datetime_complete else None  # type: ignore[operator]
    return {
        "folder": folder_of(trial),
        "state": trial.state.name.lower(),
        "value": trial.value,
        "validations": len(trial.intermediate_values),
        "seconds": seconds,
        "params": trial.params,
        "why": why_failed(trial),
    }
