"""`finetune-encoder`: a bi-encoder learns a shop's judgements."""

import argparse
import shlex
from dataclasses import fields
from pathlib import Path

from services.trainer import run_options
from services.trainer.errors import JobError
from services.trainer.finetune.options import FinetuneOptions, GradedLoss, Negatives

HELP = "fine-tune a bi-encoder on a prepared set; the folder it writes is an --base of export"
_DEFAULTS = FinetuneOptions(data=Path(), out=Path())
_FIELDS = {
    "epochs": "passes over the positives",
    "batch": "rows a step and device; each is the others' negative",
    "mini_batch": "rows in memory at a time (gradient caching); 0: all",
    "scale": "of cosines before the softmax",
    "towers": "2: queries get weights of their own",
    "query_layers": "layers of the queries' own tower: fewer answer sooner; 0: all of the base's",
    "lora_rank": "train low-rank updates; 0: every weight",
    "max_item_tokens": "texts are cut here, in training and in service",
    "validation_items": "distractors in validation",
}
_SWITCHES = {
    "grade_weights": "--no-grade-weights",
    "correct_popularity": "--no-popularity-correction",
    "resume": "--resume",
}
"""Flags that turn a field into what it is not by default."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    run_options.add_arguments(parser, _DEFAULTS, _FIELDS)
    parser.add_argument(
        "--negatives", type=Negatives, choices=list(Negatives), default=_DEFAULTS.negatives,
        help="one more a row: items judged bad, mined with the base model, or found by the shop's search (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--graded-loss", type=GradedLoss, choices=list(GradedLoss), default=_DEFAULTS.graded_loss,
        help="a second task on all grades (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--retrieval", default="", metavar="HOST:PORT", help="vector_retrieval, for --negatives retrieved"
    )
    parser.add_argument("--dimensions", default="", help="Matryoshka: vector lengths to train, as in 384,128,64")
    parser.add_argument("--no-grade-weights", action="store_true", help="every positive weighs the same")
    parser.add_argument("--no-popularity-correction", action="store_true", help="plain in-batch softmax")
    parser.add_argument("--positive-grade", type=float, help="grades from here on are positives (default: relevant)")


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    options = options_of(arguments)
    # Imported here: --help needs neither torch nor sentence-transformers.
    from services.trainer.finetune.train import finetune

    finetune(options)
    return 0


def options_of(arguments: argparse.Namespace) -> FinetuneOptions:
    """What a parsed command line asks for."""
    return FinetuneOptions(
        **run_options.given(FinetuneOptions, arguments, leave=["dimensions"]),
        dimensions=_dimensions(arguments.dimensions),
        grade_weights=not arguments.no_grade_weights,
        correct_popularity=not arguments.no_popularity_correction,
    )


def command_of(options: FinetuneOptions) -> str:
    """The command line that asks for `options`."""
    words = ["python", "-m", "services.trainer", "finetune-encoder"]
    for each in fields(FinetuneOptions):
        value = getattr(options, each.name)
        if value == getattr(_DEFAULTS, each.name):
            continue
        if isinstance(value, bool):
            words.append(_SWITCHES[each.name])
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{each.name.replace('_', '-')}", text]
    return shlex.join(words)


def _dimensions(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise JobError(f"--dimensions {text}: want lengths, as in 384,128,64") from None
