import argparse
import sys
from pathlib import Path

from shared.catalogue.check import Report
from shared.catalogue.errors import CatalogueError
from shared.catalogue.generator import DEFAULT_ITEMS, DEFAULT_SEED, generate
from shared.catalogue.readers import read_catalogue
from shared.catalogue.records import write_jsonl

_MAPPING_HELP = """\
mapping: FIELD=COLUMN, separated by commas; what is left out is found by the usual names of columns
  title=name                    a column by name; case, spaces and underscores do not matter
  price=price/100               divided first: cents (also for rating and popularity)
  currency==EUR                 a constant
  attributes.color=attr_colour  one attribute from one column
  attributes=specs              all attributes from a column of JSON objects
  description=                  leave this field out
fields: id title description brand category_path price currency in_stock rating rating_count popularity tags
  attributes group_id language url image_url updated_at
"""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 with the reason on standard error."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "generate":
            _generate(options)
        else:
            _check(options)
    except (CatalogueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shared.catalogue", description="Catalogue files.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    generate_ = commands.add_parser("generate", help="write the bundled catalogue as JSON Lines")
    generate_.add_argument("--out", type=Path, required=True, help="file to write (.jsonl, or .jsonl.gz)")
    generate_.add_argument(
        "--items", type=_positive, default=DEFAULT_ITEMS, help="how many items (default: %(default)s)"
    )
    generate_.add_argument(
        "--seed", type=int, default=DEFAULT_SEED, help="another seed, another shop (default: %(default)s)"
    )
    check = commands.add_parser(
        "check",
        help="say what a catalogue file holds, and what is wrong with it",
        epilog=_MAPPING_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("path", type=Path, help=".jsonl or .csv (each also .gz or .zip), or .parquet")
    check.add_argument("--mapping", default="", help="which column feeds which field (see below)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _generate(options: argparse.Namespace) -> None:
    written = write_jsonl(generate(options.items, options.seed), options.out)
    sys.stdout.write(f"wrote {written:,} items to {options.out}\n")


def _check(options: argparse.Namespace) -> None:
    with read_catalogue(options.path, options.mapping) as reader:
        report = Report(reader)
        report.read()
        for line in report.lines():
            # The names of columns are as the file has them, valid UTF-8 or not.
            sys.stdout.write(line.encode(errors="backslashreplace").decode() + "\n")


if __name__ == "__main__":
    sys.exit(main())
