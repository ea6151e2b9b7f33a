import json
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from services.trainer import __main__ as command
from services.trainer.errors import JobError
from services.trainer.finetune.options import FinetuneOptions
from services.trainer.finetune.validation import METRIC, RetrievalValidation
from services.trainer.prepared import PreparedSet
from services.trainer.search.options import SearchOptions
from services.trainer.search.run import search
from tests.support.judged_shop import make_prepared

SPACE = "[learning_rate]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n[grade_weights]\nchoices = [true, false]\n"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return make_prepared(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def options(prepared: PreparedSet, tiny_base: Path, tmp_path: Path) -> SearchOptions:
    space = tmp_path / "space.toml"
    space.write_text(SPACE)
    fixed = FinetuneOptions(
        data=prepared.path, out=tmp_path / "search", base=str(tiny_base), batch=16, max_steps=4, evaluations=2,
        validation_items=5,
    )  # fmt: skip
    return SearchOptions(fixed, space, full_trials=1)


def told(options: SearchOptions) -> Any:
    return json.loads((options.fixed.out / "search.json").read_text())


def measured(values: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations give these, one after another."""
    at = count()
    monkeypatch.setattr(RetrievalValidation, "__call__", lambda *_, **__: {METRIC: values[next(at)]})


def test_the_best_settings_are_found_and_told(options: SearchOptions, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    options = replace(options, fixed=replace(options.fixed, towers=2))
    best = search(options, trials=3)
    written = told(options)
    assert [trial["state"] for trial in written["trials"]].count("complete") >= 1
    top = max((trial for trial in written["trials"] if trial["state"] == "complete"), key=lambda trial: trial["value"])
    assert written["best"] == {**top, "command": written["best"]["command"]}
    assert written["best"]["command"] in caplog.text
    assert best.learning_rate == top["params"]["learning_rate"]
    assert best.out == options.fixed.out / "best"
    assert (written["seed"], bool(written["versions"]["optuna"])) == (0, True)
    trials = options.fixed.out / "trials"
    weights = {path.relative_to(trials).as_posix() for path in trials.glob("**/*.safetensors")}
    kept = {f"{top['folder']}/{tower}model.safetensors" for tower in ("", "query/")}
    assert weights == kept, "only the best one's weights stay"
    assert len(list((options.fixed.out / "trials").glob("*/training.json"))) == 3


def test_a_worse_trial_is_stopped_early(options: SearchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = [0.1, 0.5, 0.6], [0.1, 0.5, 0.7], [0.1, 0.2]
    measured([*first, *second, *third], monkeypatch)
    search(options, trials=3)
    written = told(options)
    assert [trial["state"] for trial in written["trials"]] == ["complete", "complete", "pruned"]
    assert [trial["validations"] for trial in written["trials"]] == [2, 2, 1]
    assert written["best"]["folder"] == "001"
    assert json.loads((options.fixed.out / "trials" / "002" / "training.json").read_text())["steps"] == 2


def test_a_search_that_was_cut_short_goes_on(options: SearchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = replace(options, fixed=replace(options.fixed, out=options.fixed.out.parent / "whole"))
    search(whole, trials=3)
    calls = count()
    real = RetrievalValidation.__call__

    def interrupted(*arguments: Any, **named: Any) -> dict[str, float]:
        if next(calls) == 5:  # In the second trial's last validation.
            raise KeyboardInterrupt
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(RetrievalValidation, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search(options, trials=3)
    resumed = replace(options, fixed=replace(options.fixed, resume=True))
    search(resumed, trials=2)
    search(resumed, trials=3)
    one, other = told(options), told(whole)
    assert [trial["params"] for trial in one["trials"]] == [trial["params"] for trial in other["trials"]]
    values = [[trial["value"] for trial in each["trials"]] for each in (one, other)]
    assert values[0] == pytest.approx(values[1])
    with pytest.raises(JobError, match="options or data differ"):
        search(replace(resumed, full_trials=9), trials=4)
    with pytest.raises(JobError, match="is not empty"):
        search(options, trials=4)


def test_settings_that_cannot_be_trained_are_passed_over(options: SearchOptions) -> None:
    options.space.write_text("[batch]\nchoices = [16, 5000]\n")
    search(options, trials=4)
    states = {trial["params"]["batch"]: trial["state"] for trial in told(options)["trials"]}
    assert states == {16: "complete", 5000: "fail"}
    options.space.write_text("[batch]\nchoices = [5000]\n")
    with pytest.raises(JobError, match="do not fill one batch"):
        search(replace(options, fixed=replace(options.fixed, out=options.fixed.out.parent / "none")), trials=1)


def test_the_command_line(options: SearchOptions, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = options.fixed
    arguments = ["--data", str(fixed.data), "--out", str(fixed.out), "--base", fixed.base, "--batch", "16"]
    more = ["--max-steps", "1", "--validation-items", "3", "--space", str(options.space), "--trials", "1"]
    assert command.main(["search", *arguments, *more]) == 0
    assert (fixed.out / "search.json").is_file()
    assert command.main(["search", *arguments, *more, "--space", "none.toml"]) == 1
    assert "--space none.toml" in capsys.readouterr().err
