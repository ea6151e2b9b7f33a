"""What the jobs of a registry have in common: their arguments, who asks, and what is noted."""

import argparse
import getpass
import os
import platform
from datetime import UTC, datetime


def add_registry(parser: argparse.ArgumentParser) -> None:
    """Which registry."""
    parser.add_argument(
        "--registry",
        required=True,
        metavar="PATH",
        help="directory, or a URL that fsspec opens (s3://bucket/encoder): one for encoders, another for re-rankers",
    )


def add_trace(parser: argparse.ArgumentParser) -> None:
    """Who and why, for the history."""
    parser.add_argument("--by", default=who(), help="who asks, for the history (default %(default)s)")
    parser.add_argument("--why", default="", help="why, for the history")


def add_index(parser: argparse.ArgumentParser) -> None:
    """The index that an encoder's vectors are searched in."""
    index = parser.add_mutually_exclusive_group()
    index.add_argument(
        "--index", metavar="HOST:PORT", help="vector_retrieval, whose live generation must be of the encoder's version"
    )
    index.add_argument(
        "--no-index",
        action="store_true",
        help="no index holds vectors of this registry's models (a re-ranker by late interaction)",
    )


def now() -> datetime:
    """For the history, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def who() -> str:
    """User and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's user has no name.
        user = str(os.getuid())
    return f"{user}@{platform.node()}"
