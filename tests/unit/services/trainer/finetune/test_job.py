import argparse
import shlex
from pathlib import Path

import pytest

from services.trainer.finetune.job import add_arguments, command_of, options_of
from services.trainer.finetune.options import FinetuneOptions, GradedLoss, Negatives


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learning_rate": 1.2345678901234e-05, "batch": 128, "warmup": 0.0, "dimensions": (32, 16)},
        {"negatives": Negatives.RETRIEVED, "retrieval": "localhost:50052", "graded_loss": GradedLoss.ANGLE},
        {"grade_weights": False, "correct_popularity": False, "positive_grade": 2.5, "resume": True, "max_steps": 9},
    ],
    ids=lambda changes: "+".join(changes) or "defaults",
)
def test_a_command_asks_for_the_options_that_it_was_made_of(changes: dict[str, object]) -> None:
    options = FinetuneOptions(data=Path("a shop"), out=Path("out"), **changes)  # type: ignore[arg-type]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = shlex.split(command_of(options))
    assert words[:4] == ["python", "-m", "services.trainer", "finetune-encoder"]
    assert options_of(parser.parse_args(words[4:])) == options
