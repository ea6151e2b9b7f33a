"""What all training runs share: the claim on a folder, which makes a run resumable, and the record at its end."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.trainer.errors import JobError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from transformers.integrations.integration_utils import TensorBoardCallback

CHECKPOINTS = "checkpoints"
_OPTIONS = "options.json"


def claim(out: Path, options: "DataclassInstance", data_hash: str, *, resume: bool) -> None:
    """Say in the folder what is trained there. Raises `JobError` where another run is, or a resumed one differs."""
    text = json.dumps({**plain(options), "resume": False, "data_hash": data_hash}, indent=2)
    file = out / _OPTIONS
    if resume:
        if not file.is_file() or not any((out / CHECKPOINTS).glob("checkpoint-*")):
            raise JobError(f"--resume: {out} holds no checkpoint; leave --resume out")
        if file.read_text(encoding="utf-8") != text:
            raise JobError(f"--resume: options or data differ from {file}; give the same, or another --out")
        return
    if out.exists() and any(out.iterdir()):
        raise JobError(f"{out} is not empty: give another --out, remove it, or --resume its run")
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def plain(options: "DataclassInstance") -> dict[str, Any]:
    """Options as JSON values."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}


def machine() -> str:
    """What trains, for the record."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"CPU, {torch.get_num_threads()} threads"


def schedule(steps: float, evaluations: int) -> dict[str, Any]:
    """Training arguments: validate, save and log so many times over a run of `steps`, and keep the best."""
    every = max(1, int(steps) // evaluations)
    return {
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "greater_is_better": True,
        "logging_steps": max(1, every // 10),
        "report_to": "none",
    }


def tensorboard(out: Path) -> "TensorBoardCallback":
    """Logs to `out`/tensorboard: beside the model, and not in the checkpoints, which are removed."""
    from transformers.integrations.integration_utils import TensorBoardCallback

    callback = TensorBoardCallback()  # type: ignore[no-untyped-call]
    callback.logging_dir = str(out / "tensorboard")
    return callback


def best(history: list[dict[str, float]], metric: str) -> dict[str, float]:
    """Validation of the weights that were kept, and `metric` before training, out of a trainer's log."""
    validations = [entry for entry in history if f"eval_{metric}" in entry]
    kept = max(validations, key=lambda entry: entry[f"eval_{metric}"])
    found = {name.removeprefix("eval_"): value for name, value in kept.items() if name.startswith("eval_valid_")}
    return {**found, f"base_{metric}": validations[0][f"eval_{metric}"]}
