"""A trial that is worse than the others were at the same validation is stopped."""

from typing import Any

from optuna.trial import Trial
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from services.trainer.finetune.validation import METRIC

_KEY = f"eval_{METRIC}"


class Pruning(TrainerCallback):
    """Tells the study every validation but the base model's, which is the same in every trial.

    Validations are counted, not steps: a trial with a larger batch has fewer steps for the same data.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._reported = 0
        self.pruned = False

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """See `transformers.TrainerCallback`."""
        _, *values = [entry[_KEY] for entry in state.log_history if _KEY in entry]
        # A trial that goes on after it was cut short tells what it had found before, too.
        for value in values[self._reported :]:
            self._reported += 1
            self._trial.report(value, self._reported)
        if values and state.global_step < state.max_steps and self._trial.should_prune():
            self.pruned = control.should_training_stop = True
