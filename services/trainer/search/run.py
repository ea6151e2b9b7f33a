"""The search: trials of `finetune-encoder`, one after another."""

import logging
from dataclasses import replace
from pathlib import Path

import torch
from optuna.trial import FrozenTrial, Trial

from services.trainer import record, runs
from services.trainer.base import open_base
from services.trainer.errors import JobError
from services.trainer.finetune.options import FinetuneOptions
from services.trainer.finetune.train import finetune
from services.trainer.finetune.validation import METRIC
from services.trainer.prepared import PreparedSet, open_prepared
from services.trainer.search import report, study
from services.trainer.search.options import SearchOptions
from services.trainer.search.pruning import Pruning
from services.trainer.search.space import read_space, settings
from services.trainer.search.study import Study

log = logging.getLogger(__name__)

TRIALS = "trials"


def search(options: SearchOptions, trials: int) -> FinetuneOptions:
    """The best options found in `trials` trials, those of an earlier call with the same options included.

    Writes `search.json` and each trial's folder; only the best one keeps its weights. Raises `JobError` when data,
    base, space or options do not fit together, or no trial ran to its end.
    """
    fixed, prepared = options.fixed, _checked(options)
    space = read_space(options.space)
    asked = {"space": options.space.read_text(encoding="utf-8"), "full_trials": options.full_trials}
    runs.claim(fixed, prepared.content_hash, left=[study.FILE], more=asked)
    # Before the trials: by their end somebody may have edited the code.
    revision = record.code_revision()
    tried = Study(fixed.out, space, fixed.seed, options.full_trials)
    while len(tried.finished()) < trials:
        trial = tried.ask()
        log.info("trial %d of %d: %s", len(tried.finished()) + 1, trials, report.told(trial.params))
        _try(tried, trial, fixed)
        _forget_all_but(tried.best(), fixed.out / TRIALS)
    best = tried.best()
    if best is None:
        whys = sorted({study.why_failed(trial) for trial in tried.finished()})
        raise JobError(
            f"no trial ran to its end ({'; '.join(whys)}): see {options.space}, and give --trials at least 1"
        )
    found = replace(_trial_options(fixed, best), out=fixed.out / "best")
    report.write(tried, options, prepared, best, found, revision)
    report.tell(tried, found, fixed.out / TRIALS / study.folder_of(best))
    return found


def _checked(options: SearchOptions) -> PreparedSet:
    """What no choice of settings could mend is found before the first trial."""
    prepared = open_prepared(options.fixed.data)
    open_base(options.fixed.base)
    for name in ("train", "valid"):
        prepared.split(name)
    return prepared


def _try(tried: Study, trial: Trial, fixed: FinetuneOptions) -> None:
    pruning = Pruning(trial)
    try:
        asked = _trial_options(fixed, trial)
        written = record.read_record(asked.out)
        if written is None:
            written = finetune(replace(asked, resume=runs.go_on_or_clear(asked.out)), [pruning])
    except (JobError, torch.OutOfMemoryError) as error:
        log.warning("trial failed: %s", error)
        tried.fail(trial, str(error))
        return
    if pruning.pruned:
        tried.prune(trial)
    else:
        tried.complete(trial, written.evaluation[METRIC])


def _trial_options(fixed: FinetuneOptions, trial: Trial | FrozenTrial) -> FinetuneOptions:
    return replace(fixed, **settings(trial.params), out=fixed.out / TRIALS / study.folder_of(trial), resume=False)


def _forget_all_but(best: FrozenTrial | None, folder: Path) -> None:
    """Weights of one trial are enough: a dozen fills a disk. Records and logs stay."""
    kept = study.folder_of(best) if best else ""
    for weights in folder.glob("**/*.safetensors"):
        if weights.relative_to(folder).parts[0] != kept:
            weights.unlink()
