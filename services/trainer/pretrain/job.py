"""`pretrain`: a bi-encoder learns a shop's catalogue, with judgements or without any."""

import argparse
from pathlib import Path

from services.trainer import run_options
from services.trainer.pretrain.options import Objective, PretrainOptions

HELP = "learn from the catalogue alone; the folder it writes is a --base of finetune-encoder and export"
_DEFAULTS = PretrainOptions(data=Path(), out=Path())
_FIELDS = {
    "epochs": "passes over the items",
    "batch": "items a step and device",
    "patience": "validations that are no better before stopping, with --keep best",
    "validation_queries": "of the valid split; items held out, where there is none or with mlm",
    "items": "learn from this many items only; 0: all",
    "scale": "simcse, pseudo-queries: of cosines before the softmax",
    "queries_per_item": "pseudo-queries: a row each",
    "mask": "mlm: share of tokens to be guessed",
    "delete": "tsdae: share of tokens that are deleted",
    "max_item_tokens": "texts are cut here, in training and in service",
    "validation_items": "distractors in validation",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    run_options.add_arguments(parser, _DEFAULTS, _FIELDS)
    parser.add_argument(
        "--objective", type=Objective, choices=list(Objective), default=_DEFAULTS.objective,
        help="pseudo-queries: made-up queries find their item; simcse: a text finds itself under other dropout; "
        "tsdae: a text is written anew from its vector; mlm: masked words, to be fine-tuned afterwards "
        "(default %(default)s)",
    )  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    # Imported here: --help needs neither torch nor sentence-transformers.
    from services.trainer.pretrain.train import pretrain

    pretrain(PretrainOptions(**run_options.given(PretrainOptions, arguments)))
    return 0
