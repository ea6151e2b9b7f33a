"""What came of a search: a table for people, and `search.json`."""

import json
import logging
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from services.trainer import record, runs
from services.trainer.finetune.job import command_of
from services.trainer.finetune.options import FinetuneOptions
from services.trainer.finetune.validation import METRIC
from services.trainer.prepared import PreparedSet
from services.trainer.search.options import SearchOptions
from services.trainer.search.study import Study, outcome

log = logging.getLogger(__name__)

FILE = "search.json"


def told(params: dict[str, Any]) -> str:
    """Parameters for people."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in params.items()
    )


def tell(study: Study, found: FinetuneOptions, kept: Path) -> None:
    """Logs every trial, the best first, and the command that trains with the best settings. `kept`: the best one's
    folder."""
    log.info("%-6s %-9s %-13s %11s %8s  %s", "trial", "state", "valid ndcg@10", "validations", "seconds", "parameters")
    for trial in sorted(study.finished(), key=lambda trial: (trial.state.name, -(trial.value or 0.0))):
        row = outcome(trial)
        value = "" if row["value"] is None else f"{row['value']:.4f}"
        what = row["why"] or told(row["params"])
        numbers = (value, row["validations"], row["seconds"])
        log.info("%-6s %-9s %-13s %11d %8.0f  %s", row["folder"], row["state"], *numbers, what)
    log.info("the best one's model is %s; to train it again:", kept)
    log.info("%s", command_of(found))


def write(
    study: Study, options: SearchOptions, prepared: PreparedSet, best: FrozenTrial, found: FinetuneOptions,
    revision: str,
) -> None:  # fmt: skip
    """`search.json`: all that decided, and all that came of it. `found`: the options of the `best` trial; `revision`:
    of the code that ran."""
    everything = {
        "base": options.fixed.base,
        "training_data": prepared.content_hash,
        "data_sources": {name: entry.sha256 for name, entry in prepared.report.sources.items()},
        "space": options.space.read_text(encoding="utf-8"),
        "options": runs.plain(options.fixed),
        "metric": METRIC,
        "trials": [outcome(trial) for trial in study.finished()],
        "best": {**outcome(best), "command": command_of(found)},
        "seed": options.fixed.seed,
        "command": record.command_line(),
        "code_revision": revision,
        "versions": record.package_versions("optuna"),
        "machine": runs.machine(),
    }
    (options.fixed.out / FILE).write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
