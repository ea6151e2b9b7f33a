"""What all training runs share: the claim on a folder, which makes a run resumable, arguments, and the record."""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.trainer import record
from services.trainer.base import BaseModel
from services.trainer.errors import JobError
from services.trainer.parts import FOLDER, SUFFIX, Parts
from services.trainer.prepared import PreparedSet
from services.trainer.record import TrainingRecord
from services.trainer.run_options import Keep, MixedPrecision, RunOptions

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
_STATE = "trainer_state.json"
"""What transformers writes last of a checkpoint."""
_CHECKPOINT = f"{CHECKPOINTS}/checkpoint-*/{_STATE}"
_LEFT = (_CHECKPOINT, f"{FOLDER}/*{SUFFIX}")
"""What a run goes on from. One that was cut short early has parts alone: of what it computes before it trains."""
_OPTIONS = "options.json"


def claim(
    options: RunOptions, data_hash: str, left: Sequence[str] = _LEFT, more: Mapping[str, Any] | None = None
) -> None:
    """Say in the folder what is trained there: options, data, and what `more` decides. Raises `JobError` where another
    run is, a resumed one differs or has `left` nothing to go on from, or the machine cannot do what is asked."""
    # torch takes seconds to import.
    from services.trainer import compute

    compute.check(options.mixed_precision)
    if hint := compute.hint(options.mixed_precision):
        log.info(hint)
    if not _first_process():
        return
    out = options.out
    text = json.dumps({**asked(options, data_hash), **(more or {})}, indent=2)
    file = out / _OPTIONS
    if options.resume:
        _drop_torn(out)
        if not file.is_file() or not _holds(out, left):
            raise JobError(f"--resume: {out} holds no {' or '.join(left)}; leave --resume out")
        if file.read_text(encoding="utf-8") != text:
            raise JobError(f"--resume: options or data differ from {file}; give the same, or another --out")
        return
    if out.exists() and any(out.iterdir()):
        raise JobError(f"{out} is not empty: give another --out, remove it, or --resume its run")
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


@contextmanager
def claimed(options: RunOptions, data_hash: str) -> Iterator[None]:
    """`claim`, taken back where the run ends before there is anything to go on from: what an error asks for, fewer
    pairs a batch or a service that answers, can then be had with the same --out."""
    claim(options, data_hash)
    try:
        yield
    finally:
        if _first_process() and [file.name for file in options.out.glob("*")] == [_OPTIONS]:
            (options.out / _OPTIONS).unlink()


def processes() -> int:
    """How many train together, as torchrun and accelerate tell them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _first_process() -> bool:
    """Of these, the one that claims and writes."""
    return os.environ.get("RANK", "0") == "0"


def go_on_or_clear(out: Path) -> bool:
    """Whether a run that was cut short can go on in `out`; where it cannot, what is there is removed."""
    _drop_torn(out)
    resume = _holds(out, _LEFT) and not (out / record.FILE).is_file()
    if not resume:
        shutil.rmtree(out, ignore_errors=True)
    return resume


def _drop_torn(out: Path) -> None:
    """Removes checkpoints that were being written when their run was killed: transformers would go on from the last,
    torn or not, and keeps the one before it until it is whole."""
    for checkpoint in out.glob(f"{CHECKPOINTS}/checkpoint-*"):
        try:
            json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            log.info("%s was left half-written: removed", checkpoint)
            shutil.rmtree(checkpoint)


def _holds(out: Path, patterns: Sequence[str]) -> bool:
    return any(found for pattern in patterns for found in out.glob(pattern))


def _from_checkpoint(options: RunOptions) -> bool:
    return options.resume and _holds(options.out, [_CHECKPOINT])


def parts_of(options: RunOptions) -> Parts:
    """Where a run keeps what it computes before it trains."""
    return Parts(options.out / FOLDER, writes=_first_process())


def asked(options: RunOptions, data_hash: str) -> dict[str, Any]:
    """What a run and its resumption have in common, as JSON values."""
    return {**plain(options), "resume": False, "data_hash": data_hash}


def plain(options: RunOptions) -> dict[str, Any]:
    """Options as JSON values."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}


def machine() -> str:
    """What trains, for the record."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"CPU, {torch.get_num_threads()} threads"


def arguments(options: RunOptions, rows: int, metric: str) -> dict[str, Any]:
    """Training arguments of a run over `rows` rows an epoch: validate, save and log evenly spread. `metric` says which
    weights are best."""
    import torch

    # transformers spreads a process's batches over all the GPUs that it sees.
    devices = processes() if processes() > 1 else max(1, torch.cuda.device_count())
    steps = options.max_steps if options.max_steps > 0 else -(-rows // (options.batch * devices)) * options.epochs
    every = max(1, int(steps) // options.evaluations)
    return {
        "output_dir": str(options.out / CHECKPOINTS),
        "num_train_epochs": options.epochs,
        "max_steps": options.max_steps,
        "per_device_train_batch_size": options.batch,
        "learning_rate": options.learning_rate,
        "warmup_steps": options.warmup,
        "weight_decay": options.weight_decay,
        "bf16": options.mixed_precision is MixedPrecision.BF16,
        # Or several processes without a GPU do not learn together.
        "use_cpu": not torch.accelerator.is_available(),
        # Else what the last of a step's forward passes does not use counts as used by none: one of two towers.
        "ddp_find_unused_parameters": False,
        "fp16": options.mixed_precision is MixedPrecision.FP16,
        "eval_on_start": not _from_checkpoint(options),
        "metric_for_best_model": f"eval_{metric}",
        "dataloader_pin_memory": torch.cuda.is_available(),
        "seed": options.seed,
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 1,
        "load_best_model_at_end": options.keep is Keep.BEST,
        "greater_is_better": True,
        "logging_steps": max(1, every // 10),
        "report_to": "none",
    }


def early_stopping(options: RunOptions) -> "list[TrainerCallback]":
    """Of a run that keeps its best weights; the last are those of a whole one."""
    from transformers import EarlyStoppingCallback

    return [EarlyStoppingCallback(early_stopping_patience=options.patience)] if options.keep is Keep.BEST else []


def kept(history: list[dict[str, float]], metric: str, keep: Keep) -> dict[str, float]:
    """Validation of the weights that were kept, and `metric` before training, out of a trainer's log.

    What is kept was trained, even where the base was better: transformers saves no checkpoint before the first step.
    """
    base, *trained = [entry for entry in history if f"eval_{metric}" in entry]
    trained = trained or [base]
    its = trained[-1] if keep is Keep.LAST else max(trained, key=lambda entry: entry[f"eval_{metric}"])
    found = {name.removeprefix("eval_"): value for name, value in its.items() if name.startswith("eval_valid_")}
    return {**found, f"base_{metric}": base[f"eval_{metric}"]}


def train(
    trainer: "Trainer", options: RunOptions, prepared: PreparedSet, base: BaseModel, *, max_tokens: int, metric: str
) -> TrainingRecord:
    """Trains, and says how the weights that were kept came to be."""
    # Before training: by its end somebody may have edited the code.
    revision, started = record.code_revision(), time.monotonic()
    trainer.train(resume_from_checkpoint=_from_checkpoint(options) or None)
    # The first process removes the checkpoints, from which all read the best weights.
    trainer.accelerator.wait_for_everyone()
    return TrainingRecord(
        base_model=base.grew_from,
        item_template=base.item_template,
        prompts=base.prompts,
        max_item_tokens=max_tokens,
        dimensions=base.dimensions,
        training_data=prepared.content_hash,
        data_sources={name: entry.sha256 for name, entry in prepared.report.sources.items()},
        options=plain(options),
        evaluation=kept(trainer.state.log_history, metric, options.keep),
        steps=trainer.state.global_step,
        seconds=round(time.monotonic() - started, 1),
        seed=options.seed,
        command=record.command_line(),
        code_revision=revision,
        versions=record.package_versions(),
        machine=machine(),
    )


def finish(options: RunOptions, written: TrainingRecord) -> None:
    """Writes the record beside the model; what a resumed run would need is not needed any more."""
    (options.out / record.FILE).write_text(written.model_dump_json(indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(options.out / CHECKPOINTS, ignore_errors=True)
    parts_of(options).remove()
