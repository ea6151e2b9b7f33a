from pathlib import Path

from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from services.trainer.search.study import Study, folder_of, outcome

SPACE = {"x": FloatDistribution(0, 1)}


def run(study: Study, trials: int) -> list[float]:
    """The best x is 0.3."""
    while len(study.finished()) < trials:
        trial = study.ask()
        study.complete(trial, 1 - abs(trial.params["x"] - 0.3))
    return [trial.params["x"] for trial in study.finished()]


def test_later_trials_are_nearer_to_the_best(tmp_path: Path) -> None:
    tried = run(Study(tmp_path, SPACE, 0, 4), 25)
    first, last = (sum(abs(x - 0.3) for x in part) for part in (tried[:8], tried[-8:]))
    assert last < first / 2


def test_a_search_that_was_cut_short_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = run(Study(tmp_path / "whole", SPACE, 7, 4), 12)
    study = Study(tmp_path / "cut", SPACE, 7, 4)
    run(study, 8)
    lost = study.ask()
    again = Study(tmp_path / "cut", SPACE, 7, 4)
    assert len(again.finished()) == 8
    goes_on = again.ask()
    assert goes_on.params == lost.params
    assert folder_of(goes_on) == folder_of(lost)
    again.complete(goes_on, 1 - abs(goes_on.params["x"] - 0.3))
    assert run(again, 12) == whole


def test_a_trial_that_cannot_be_trained_counts_and_is_never_the_best(tmp_path: Path) -> None:
    study = Study(tmp_path, SPACE, 0, 4)
    study.fail(study.ask(), "too little memory")
    assert study.best() is None
    run(study, 3)
    failed, *others = study.finished()
    assert (outcome(failed)["state"], outcome(failed)["why"]) == ("fail", "too little memory")
    assert all(trial.state is TrialState.COMPLETE for trial in others)
    best = study.best()
    assert best is not None
    assert best.value == max(trial.value or 0 for trial in others)


def test_what_is_worse_than_the_median_is_stopped(tmp_path: Path) -> None:
    study = Study(tmp_path, SPACE, 0, full_trials=2)
    for value in (0.5, 0.6):
        trial = study.ask()
        trial.report(value, 1)
        assert not trial.should_prune(), "the first ones run to their end"
        study.complete(trial, value)
    bad, good = study.ask(), study.ask()
    bad.report(0.4, 1)
    good.report(0.7, 1)
    assert bad.should_prune()
    assert not good.should_prune()
    study.prune(bad)
    assert outcome(study.finished()[2])["state"] == "pruned"
