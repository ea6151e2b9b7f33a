"""What may be chosen, as a TOML file says: options of `finetune-encoder`, each with a range or a list of choices."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from services.trainer.errors import JobError
from services.trainer.finetune.options import FinetuneOptions
from services.trainer.search.options import DEFAULT_SPACE

SEARCHABLE = (
    "epochs", "batch", "mini_batch", "learning_rate", "warmup", "weight_decay", "scale", "positive_grade",
    "grade_weights", "correct_popularity", "negatives", "graded_loss", "lora_rank",
)  # fmt: skip
"""Not the data, the base, or anything that validation depends on: trials must be comparable."""
_TYPES = {name: TypeAdapter(kind) for name, kind in get_type_hints(FinetuneOptions).items() if name in SEARCHABLE}


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Range(_Closed):
    """All numbers between two, both included."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    def distribution(self) -> BaseDistribution:
        """Of whole numbers where both ends are."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


class Choices(_Closed):
    """One of these."""

    choices: tuple[bool | int | float | str, ...] = Field(min_length=1)

    def distribution(self) -> BaseDistribution:
        """Without an order."""
        return CategoricalDistribution(self.choices)


_SPACE = TypeAdapter(dict[str, Choices | Range])


def read_space(path: Path) -> dict[str, BaseDistribution]:
    """By name of the option. Raises `JobError` naming the file and the option at fault."""
    try:
        entries = _SPACE.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise JobError(f"--space {path}: no such file; {DEFAULT_SPACE} is one to copy") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise JobError(f"--space {path}: {error}") from None
    except ValidationError as error:
        # The kind that was tried stands between the option's name and the key.
        faults = "; ".join(f"{each['loc'][0]}.{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        raise JobError(f"--space {path}: {faults}; {DEFAULT_SPACE} shows how") from None
    if not entries:
        raise JobError(f"--space {path}: names no option")
    return {name: _checked(path, name, entry) for name, entry in entries.items()}


def settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen, as fields of `FinetuneOptions`."""
    return {name: _TYPES[name].validate_python(value) for name, value in params.items()}


def _checked(path: Path, name: str, entry: Choices | Range) -> BaseDistribution:
    if name not in SEARCHABLE:
        raise JobError(f"--space {path}: {name} cannot be searched for; {', '.join(SEARCHABLE)} can")
    values = entry.choices if isinstance(entry, Choices) else (entry.low, entry.high)
    try:
        meant = [_TYPES[name].validate_python(value) for value in values]
        distribution = entry.distribution()
    except ValueError as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise JobError(f"--space {path}: {name}: {why}") from None
    if isinstance(entry, Range) and any(isinstance(value, bool) for value in meant):
        raise JobError(f"--space {path}: {name}: give choices, it has no range")
    return distribution
