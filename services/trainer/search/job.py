"""`search`: which settings of `finetune-encoder` learn a shop's judgements best."""

import argparse
from pathlib import Path

from services.trainer.finetune import job as finetune_encoder
from services.trainer.search.options import DEFAULT_SPACE, SearchOptions

HELP = "search for the best settings of finetune-encoder, whose other options it takes; prints the command to run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job: that of `finetune-encoder`, and the search's own."""
    finetune_encoder.add_arguments(parser)
    own = parser.add_argument_group("search")
    own.add_argument(
        "--trials", type=int, default=12,
        help="in all; --resume with more goes on where a search has ended (default %(default)s)",
    )  # fmt: skip
    own.add_argument(
        "--space", type=Path, default=DEFAULT_SPACE,
        help="TOML: what is searched for, in which range (default %(default)s, which says how to write one)",
    )  # fmt: skip
    own.add_argument(
        "--full-trials", type=int, default=SearchOptions.full_trials,
        help="trials before any is stopped for being worse than their median (default %(default)s)",
    )  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    # Imported here: --help needs neither torch nor optuna.
    from services.trainer.search.run import search

    fixed = finetune_encoder.options_of(arguments)
    search(SearchOptions(fixed, arguments.space, arguments.full_trials), arguments.trials)
    return 0
