"""Where a training run is logged: TensorBoard beside the model, and Weights & Biases where a project is set."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.trainer.errors import JobError
from services.trainer.settings import TrainerSettings

if TYPE_CHECKING:
    from transformers import TrainerCallback


def callbacks(out: Path, told: Mapping[str, Any]) -> "list[TrainerCallback]":
    """For a trainer of the run in `out`, which is `told` its options. Raises `JobError` where a project is set and its
    package is missing."""
    project = TrainerSettings().wandb_project  # type: ignore[call-arg]
    return [_tensorboard(out), *([_weights_and_biases(project, out, told)] if project else [])]


def _tensorboard(out: Path) -> "TrainerCallback":
    """Beside the model, and not in the checkpoints, which are removed."""
    from transformers.integrations.integration_utils import TensorBoardCallback

    callback = TensorBoardCallback()  # type: ignore[no-untyped-call]
    callback.logging_dir = str(out / "tensorboard")
    return callback


def _weights_and_biases(project: str, out: Path, told: Mapping[str, Any]) -> "TrainerCallback":
    try:
        import wandb
    except ImportError as error:
        raise JobError(
            f"AISLE_TRAINER_WANDB_PROJECT={project} needs a package: pip install 'aisle[wandb]', or leave it empty"
        ) from error
    from transformers.integrations.integration_utils import WandbCallback

    class Run(WandbCallback):
        """One run of the project for each of ours: a search has many in one process."""

        def setup(self, args: Any, state: Any, model: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                # Numbers and options alone: neither code nor what is printed, which may quote the shop's data.
                only = wandb.Settings(console="off", disable_code=True)
                wandb.init(
                    project=project,
                    name=out.name,
                    dir=str(out),
                    config=dict(told),
                    settings=only,
                    # One that was given up, as a search gives up trials, has not ended by itself.
                    reinit="finish_previous",
                )
            super().setup(args, state, model, **kwargs)  # type: ignore[no-untyped-call]

        def on_train_end(self, *given: Any, **named: Any) -> None:
            super().on_train_end(*given, **named)
            wandb.finish()

    return Run()  # type: ignore[no-untyped-call]
