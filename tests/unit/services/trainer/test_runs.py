from dataclasses import replace
from pathlib import Path

import pytest
from transformers.trainer_utils import get_last_checkpoint

from services.trainer import compute, record
from services.trainer.errors import JobError
from services.trainer.run_options import Keep, RunOptions
from services.trainer.runs import arguments, claim, claimed, go_on_or_clear, kept


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_what_is_told_is_of_the_weights_that_were_kept() -> None:
    history = [{"eval_valid_x": 0.5, "step": 0}, {"loss": 1.0}, {"eval_valid_x": 0.7}, {"eval_valid_x": 0.6}]
    assert kept(history, "valid_x", Keep.BEST) == {"valid_x": 0.7, "base_valid_x": 0.5}
    assert kept(history, "valid_x", Keep.LAST) == {"valid_x": 0.6, "base_valid_x": 0.5}


def test_a_base_that_training_made_worse_is_not_told_as_kept() -> None:
    history = [{"eval_valid_x": 0.5}, {"eval_valid_x": 0.3, "eval_runtime": 1.0}, {"eval_valid_x": 0.4}]
    assert kept(history, "valid_x", Keep.BEST) == {"valid_x": 0.4, "base_valid_x": 0.5}


@pytest.mark.skipif("__import__('torch').cuda.device_count() > 1", reason="counts what one device does")
@pytest.mark.parametrize(("processes", "every"), [(1, 25), (4, 6)])
def test_validations_are_spread_over_the_steps_that_all_processes_take_together(
    monkeypatch: pytest.MonkeyPatch, processes: int, every: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    options = RunOptions(data=Path("data"), out=Path("out"), batch=10, evaluations=4)
    told = arguments(options, 1_000, "ndcg")
    assert told["eval_steps"] == told["save_steps"] == every


@pytest.mark.parametrize(
    ("left", "goes_on"),
    [
        ("checkpoints/checkpoint-7/trainer_state.json", True),
        ("checkpoints/checkpoint-7/model.safetensors", False),
        ("parts/abc.part", True),
        ("parts/abc.draft-1", False),
        ("other", False),
    ],
)
def test_a_run_goes_on_from_checkpoints_and_parts_until_it_has_ended(tmp_path: Path, left: str, goes_on: bool) -> None:
    out = tmp_path / "out"
    write(out / left, "{}")
    assert go_on_or_clear(out) is goes_on
    assert out.exists() is goes_on
    write(out / left, "{}")
    (out / record.FILE).touch()
    assert not go_on_or_clear(out)
    assert not out.exists()


@pytest.mark.parametrize("torn", [{}, {"trainer_state.json": '{"epoch": 0.'}])
def test_a_run_goes_on_from_the_last_checkpoint_that_is_whole(tmp_path: Path, torn: dict[str, str]) -> None:
    options = RunOptions(data=Path("data"), out=tmp_path / "out")
    claim(options, "abc")
    checkpoints = options.out / "checkpoints"
    write(checkpoints / "checkpoint-7" / "trainer_state.json", "{}")
    for name, text in {"model.safetensors": "", **torn}.items():
        write(checkpoints / "checkpoint-14" / name, text)
    claim(replace(options, resume=True), "abc")
    assert get_last_checkpoint(str(checkpoints)) == str(checkpoints / "checkpoint-7")


@pytest.mark.parametrize("error", [JobError, KeyboardInterrupt])
def test_a_run_that_ends_with_nothing_to_go_on_from_leaves_its_folder_to_another(
    tmp_path: Path, error: type[BaseException]
) -> None:
    options = RunOptions(data=Path("data"), out=tmp_path / "out")

    def run(batch: int, makes: str = "") -> None:
        with claimed(replace(options, batch=batch), "abc"):
            with pytest.raises(JobError, match="is not empty"):
                claim(options, "abc")
            if makes:
                (options.out / makes).mkdir()
            raise error

    with pytest.raises(error):
        run(batch=8)
    with pytest.raises(error):
        run(batch=4, makes="parts")
    with pytest.raises(JobError, match="is not empty"):
        run(batch=2)


def test_a_run_says_what_would_be_faster_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(compute, "hint", lambda precision: f"faster than {precision}")
    claim(RunOptions(data=Path("data"), out=tmp_path / "out"), "abc")
    assert "faster than none" in caplog.text


def test_an_image_says_of_what_commit_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISLE_CODE_REVISION", "abc")
    assert record.code_revision() == "abc"
    monkeypatch.setenv("AISLE_CODE_REVISION", "")
    assert record.code_revision() != "abc"
