"""`training.json`: how a fine-tuned model came to be, and what an export must know to serve it as it was trained."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.trainer.errors import JobError
from shared.bundles import ItemTemplate, Prompts

FILE = "training.json"
_PACKAGES = ("torch", "transformers", "sentence-transformers", "peft", "accelerate", "datasets", "tokenizers", "numpy")


class TrainingRecord(BaseModel):
    """The whole of `training.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str
    """Of the first base: a model that was fine-tuned twice still names what it grew from."""
    item_template: ItemTemplate
    prompts: Prompts
    max_item_tokens: int
    dimensions: int = 0
    """Leading components that the vectors of the base's bundle have; 0: all, or no bundle."""
    training_data: str
    """Content hash of the prepared set."""
    data_sources: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the files that were prepared, by name."""
    options: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, float] = Field(default_factory=dict)
    """Validation measures of the weights that were kept."""
    steps: int = 0
    seconds: float = 0.0
    """Wall-clock time of training, validation included."""
    seed: int
    command: str = ""
    code_revision: str = ""
    """git commit, with `+` where the working tree differed from it; in an image the one it was built of (environment
    variable `AISLE_CODE_REVISION`); empty where neither is known."""
    versions: dict[str, str] = Field(default_factory=dict)
    machine: str = ""


def read_record(folder: Path) -> TrainingRecord | None:
    """The record of a model folder; None for a model that was not trained here."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        return TrainingRecord.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise JobError(f"{file} is not a record of this version ({error.error_count()} faults)") from error


def command_line() -> str:
    """The command that runs this job, to be run again."""
    return shlex.join(["python", "-m", "services.trainer", *sys.argv[1:]])


def package_versions(*more: str) -> dict[str, str]:
    """Of the packages that decide a model's numbers, and of `more`."""
    installed = {name: _version(name) for name in (*_PACKAGES, *more)}
    return {"python": platform.python_version(), **{name: version for name, version in installed.items() if version}}


def code_revision() -> str:
    """See `TrainingRecord.code_revision`."""
    if built_of := os.environ.get("AISLE_CODE_REVISION"):
        return built_of
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
