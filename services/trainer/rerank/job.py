"""`finetune-reranker`: a cross-encoder learns a shop's judgements, or what a larger one learnt from them."""

import argparse
from pathlib import Path

from services.trainer import run_options
from services.trainer.rerank.options import RankLoss, RerankOptions

HELP = "fine-tune or distil a cross-encoder on a prepared set; export it with --kind cross-encoder"
_DEFAULTS = RerankOptions(data=Path(), out=Path())
_FIELDS = {
    "base": "model folder, bundle, or `minilm`, best the shop's own fine-tuned bi-encoder (default: the teacher where "
    "there is one, else minilm)",
    "layers": "keep this many of the base, evenly spread; 0: all",
    "negatives": "unjudged items a query",
    "random_negatives": "random items a query, besides those that --retriever or --retrieval finds",
    "batch": "pairs a step, or queries (pairwise, listwise)",
    "max_pair_tokens": "query and item are cut here, in training and in service",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    run_options.add_arguments(parser, _DEFAULTS, _FIELDS)
    parser.add_argument("--loss", type=RankLoss, choices=list(RankLoss), default=_DEFAULTS.loss, help="(%(default)s)")
    parser.add_argument("--teacher", default="", help="folder of a cross-encoder to learn from, with --loss distill")
    parser.add_argument("--retriever", default="", help="bi-encoder that finds the unjudged items (default: random)")
    parser.add_argument(
        "--retrieval", default="", metavar="HOST:PORT",
        help="vector_retrieval that finds them, by words, and by vectors where --retriever is the bundle of its index",
    )  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    # Imported here: --help needs neither torch nor sentence-transformers.
    from services.trainer.rerank.train import finetune_reranker

    finetune_reranker(RerankOptions(**run_options.given(RerankOptions, arguments)))
    return 0
