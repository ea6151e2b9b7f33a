from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from services.trainer.errors import JobError
from services.trainer.finetune.options import FinetuneOptions, Negatives
from services.trainer.search.options import DEFAULT_SPACE
from services.trainer.search.space import read_space, settings


def write(path: Path, text: str) -> Path:
    (path / "space.toml").write_text(text)
    return path / "space.toml"


def test_a_file_is_read_as_it_says(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "[learning_rate]\nlow = 1e-5\nhigh = 1e-3\nlog = true\n[lora_rank]\nlow = 4\nhigh = 16\nstep = 4\n"
        '[negatives]\nchoices = ["none", "judged"]\n',
    )
    assert read_space(path) == {
        "learning_rate": FloatDistribution(1e-5, 1e-3, log=True),
        "lora_rank": IntDistribution(4, 16, step=4),
        "negatives": CategoricalDistribution(["none", "judged"]),
    }


def test_what_is_chosen_is_what_the_options_hold() -> None:
    found = settings({"negatives": "judged", "batch": 32, "warmup": 0, "grade_weights": False})
    options = FinetuneOptions(data=Path(), out=Path(), **found)
    assert options.negatives is Negatives.JUDGED
    assert (options.batch, options.warmup, options.grade_weights) == (32, 0.0, False)


def test_the_default_can_be_read() -> None:
    assert "learning_rate" in read_space(DEFAULT_SPACE)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names no option"),
        ("[learning_rate\n", "space.toml: "),
        ("[seed]\nchoices = [1, 2]\n", "seed cannot be searched for"),
        ("[validation_items]\nlow = 1\nhigh = 5\n", "validation_items cannot be searched for"),
        ("[learning_rate]\nlow = 1e-5\n", "learning_rate.high: Field required"),
        ("[learning_rate]\nlow = 1e-3\nhigh = 1e-5\n", "learning_rate: "),
        ("[learning_rate]\nlow = 0.0\nhigh = 1.0\nlog = true\n", "learning_rate: "),
        ('[negatives]\nchoices = ["none", "mind"]\n', "negatives: "),
        ("[batch]\nchoices = [32, 48.5]\n", "batch: "),
        ("[batch]\nlow = 8.5\nhigh = 64\n", "batch: "),
        ("[grade_weights]\nlow = 0\nhigh = 1\n", "grade_weights: give choices"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(JobError) as raised:
        read_space(write(tmp_path, text))
    assert told in str(raised.value)


def test_a_missing_file_names_one_to_copy(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"search\.toml is one to copy"):
        read_space(tmp_path / "none.toml")
