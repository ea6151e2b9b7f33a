"""`finetune-reranker`: a cross-encoder learns a shop's judgements, or what a larger one learnt from them."""

import argparse
from pathlib import Path

from services.trainer.finetune.options import MixedPrecision
from services.trainer.rerank.options import RankLoss, RerankOptions

HELP = "fine-tune or distil a cross-encoder on a prepared set; export it with --kind cross-encoder"
_DEFAULTS = RerankOptions(data=Path(), out=Path())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    parser.add_argument("--data", required=True, type=Path, help="a prepared set (see the job prepare)")
    parser.add_argument("--out", required=True, type=Path, help="folder for the model, logs and checkpoints")
    parser.add_argument("--base", default=_DEFAULTS.base, help="model folder, bundle, or `minilm` (%(default)s)")
    parser.add_argument("--loss", type=RankLoss, choices=list(RankLoss), default=_DEFAULTS.loss, help="(%(default)s)")
    parser.add_argument("--teacher", default="", help="folder of a cross-encoder to learn from, with --loss distill")
    parser.add_argument("--retriever", default="", help="bi-encoder that finds the unjudged items (default: random)")
    for flag, name, what in (
        ("--layers", "layers", "keep this many of the base, evenly spread; 0: all"),
        ("--negatives", "negatives", "unjudged items a query"),
        ("--epochs", "epochs", "passes over the rows"),
        ("--max-steps", "max_steps", "optimiser steps; -1: as --epochs says"),
        ("--batch", "batch", "pairs a step, or queries (pairwise, listwise)"),
        ("--learning-rate", "learning_rate", "peak"),
        ("--max-pair-tokens", "max_pair_tokens", "query and item are cut here, in training and in service"),
        ("--evaluations", "evaluations", "validations a run"),
        ("--patience", "patience", "validations without a better NDCG@10 before stopping"),
        ("--validation-queries", "validation_queries", "of the valid split"),
        ("--train-queries", "train_queries", "use this many queries only; 0: all"),
        ("--seed", "seed", "same seed and data, same metrics within noise"),
    ):
        default = getattr(_DEFAULTS, name)
        parser.add_argument(flag, type=type(default), default=default, help=f"{what} (default %(default)s)")
    parser.add_argument(
        "--mixed-precision", type=MixedPrecision, choices=list(MixedPrecision), default=_DEFAULTS.mixed_precision,
        help="on a GPU (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    # Imported here: --help needs neither torch nor sentence-transformers.
    from services.trainer.rerank.train import finetune_reranker

    names = RerankOptions.__dataclass_fields__
    finetune_reranker(RerankOptions(**{name: value for name, value in vars(arguments).items() if name in names}))
    return 0
