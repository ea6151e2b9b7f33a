"""`python -m shared.bundles verify <bundle> …`: whether each can be trusted, before anything loads it."""

import argparse
import sys

from shared.bundles import BundleError, load_bundle


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 when every bundle is whole, else 1 with what is wrong on standard error."""
    options = _parser().parse_args(arguments)
    status = 0
    for name in options.bundles:
        try:
            bundle = load_bundle(name)
        except BundleError as error:
            sys.stderr.write(f"error: {error.message}\n")
            status = 1
        else:
            sys.stdout.write(f"{bundle.path}: {bundle.manifest.kind} {bundle.manifest.name} {bundle.version}\n")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shared.bundles", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    verify = commands.add_parser("verify", help="compare every file with the manifest's hashes; about 0.3 s per 100 MB")
    verify.add_argument(
        "bundles",
        nargs="+",
        metavar="bundle",
        help="path, file:// URL, or registry:PATH#live, as in a service's setting",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
