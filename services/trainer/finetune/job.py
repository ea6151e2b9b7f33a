"""`finetune-encoder`: a bi-encoder learns a shop's judgements."""

import argparse
from pathlib import Path

from services.trainer.errors import JobError
from services.trainer.finetune.options import FinetuneOptions, GradedLoss, MixedPrecision, Negatives

HELP = "fine-tune a bi-encoder on a prepared set; the folder it writes is an --base of export"
_DEFAULTS = FinetuneOptions(data=Path(), out=Path())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    parser.add_argument("--data", required=True, type=Path, help="a prepared set (see the job prepare)")
    parser.add_argument("--out", required=True, type=Path, help="folder for the model, logs and checkpoints")
    parser.add_argument("--base", default=_DEFAULTS.base, help="model folder, bundle, or `minilm` (%(default)s)")
    _numbers(parser)
    parser.add_argument(
        "--negatives", type=Negatives, choices=list(Negatives), default=_DEFAULTS.negatives,
        help="one more a row: items judged bad, mined with the base model, or found by the shop's search (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--graded-loss", type=GradedLoss, choices=list(GradedLoss), default=_DEFAULTS.graded_loss,
        help="a second task on all grades (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--mixed-precision", type=MixedPrecision, choices=list(MixedPrecision), default=_DEFAULTS.mixed_precision,
        help="on a GPU (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--retrieval", default="", metavar="HOST:PORT", help="vector_retrieval, for --negatives retrieved"
    )
    parser.add_argument("--dimensions", default="", help="Matryoshka: vector lengths to train, as in 384,128,64")
    parser.add_argument("--no-grade-weights", action="store_true", help="every positive weighs the same")
    parser.add_argument("--no-popularity-correction", action="store_true", help="plain in-batch softmax")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")


def _numbers(parser: argparse.ArgumentParser) -> None:
    for flag, name, what in (
        ("--epochs", "epochs", "passes over the positives"),
        ("--max-steps", "max_steps", "optimiser steps; -1: as --epochs says"),
        ("--batch", "batch", "rows a step and device; each is the others' negative"),
        ("--mini-batch", "mini_batch", "rows in memory at a time (gradient caching); 0: all"),
        ("--learning-rate", "learning_rate", "peak"),
        ("--scale", "scale", "of cosines before the softmax"),
        ("--lora-rank", "lora_rank", "train low-rank updates; 0: every weight"),
        ("--max-item-tokens", "max_item_tokens", "texts are cut here, in training and in service"),
        ("--evaluations", "evaluations", "validations a run"),
        ("--patience", "patience", "validations without a better NDCG@10 before stopping"),
        ("--validation-queries", "validation_queries", "of the valid split"),
        ("--validation-items", "validation_items", "distractors in validation"),
        ("--train-queries", "train_queries", "use this many queries only; 0: all"),
        ("--seed", "seed", "same seed and data, same metrics within noise"),
    ):
        default = getattr(_DEFAULTS, name)
        parser.add_argument(flag, type=type(default), default=default, help=f"{what} (default %(default)s)")
    parser.add_argument("--positive-grade", type=float, help="grades from here on are positives (default: relevant)")


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    values = vars(arguments)
    options = FinetuneOptions(
        **{
            name: values[name]
            for name in FinetuneOptions.__dataclass_fields__
            if name in values and name != "dimensions"
        },
        dimensions=_dimensions(arguments.dimensions),
        grade_weights=not arguments.no_grade_weights,
        correct_popularity=not arguments.no_popularity_correction,
    )
    # Imported here: --help needs neither torch nor sentence-transformers.
    from services.trainer.finetune.train import finetune

    finetune(options)
    return 0


def _dimensions(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise JobError(f"--dimensions {text}: want lengths, as in 384,128,64") from None
