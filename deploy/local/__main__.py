"""`python -m deploy.local`: the mesh on this machine."""

import argparse
import os
import sys
from pathlib import Path

from deploy.local import client, commands, interrupt, state
from deploy.local.errors import LocalError
from deploy.local.spec import DEFAULT_FOLDER, MESHES, ROOT


def main() -> int:
    """Runs one command; the exit status."""
    options = _parser().parse_args()
    interrupt.install()
    try:
        with client.presenting(state.operator(options.folder)):
            return int(options.run(options))
    except LocalError as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1
    except interrupt.Interrupted as interrupted:
        print("\ninterrupted: what this command started is stopped", file=sys.stderr)
        return 128 + interrupted.number
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing is to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.local",
        description="The whole mesh on this machine, every service a process of its own.",
        epilog="Any setting of a service can be given in the environment: AISLE_<SERVICE>_<SETTING>, for example "
        "AISLE_RERANKER_LOG_LEVEL=debug; `python -m services.<name> --help` lists them.",
    )
    parser.add_argument(
        "--folder",
        type=lambda given: Path(given).expanduser().resolve(),
        default=DEFAULT_FOLDER,
        help="where logs, indexes and the state of a mesh lie: a folder each for two meshes side by side "
        f"(default {DEFAULT_FOLDER.relative_to(ROOT)})",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")

    _demo_parser(subparsers)

    up = subparsers.add_parser(
        "up", help="start the mesh in the background", description="Starts the mesh and leaves it running."
    )
    _catalogue_arguments(up, "whose index to serve; the bundled one by default. Nothing is loaded")
    _port_argument(up)
    _mesh_arguments(up)
    up.set_defaults(run=commands.up)

    down = subparsers.add_parser("down", help="stop it", description="Stops the mesh that `up` or `demo` left.")
    down.set_defaults(run=commands.down)

    status = subparsers.add_parser(
        "status",
        help="what runs, its health, its model",
        description="Shows each service. The exit status is 0 only if everything serves.",
    )
    status.set_defaults(run=commands.status)

    ingest = subparsers.add_parser(
        "ingest",
        help="load a catalogue into the running mesh",
        description="Adds the items of a file to the index that is served, replacing those with the same id. An import "
        "that was cut off goes on where it was.",
    )
    _catalogue_arguments(ingest)
    ingest.add_argument("--target", help="host:port of a gateway; the running mesh's by default")
    ingest.add_argument(
        "--restart",
        action="store_true",
        default=_env("RESTART") not in (None, "0"),
        help="from the first row, whatever an earlier run has done (env RESTART=1)",
    )
    ingest.set_defaults(run=commands.ingest)

    reindex = subparsers.add_parser(
        "reindex",
        help="change the model of the running mesh",
        description="Encodes the index anew with another model while it is searched, and starts the encoders with that "
        "model. Interrupted and run again, it goes on where it was.",
    )
    reindex.add_argument("--model", default=_env("MODEL"), metavar="PATH", help="a model bundle (env MODEL)")
    reindex.set_defaults(run=commands.reindex)

    promote = subparsers.add_parser(
        "promote",
        help="bring a registry's candidate into the running mesh",
        description="Judges the candidate, encodes the index anew with it while it is searched, and points the "
        "registry's live channel to it, which the encoders follow without a restart.",
    )
    _registry_argument(promote)
    promote.add_argument(
        "--override", default=_env("OVERRIDE"), metavar="REASON", help="in spite of what the judge says (env OVERRIDE)"
    )
    promote.set_defaults(run=commands.promote)

    rollback = subparsers.add_parser(
        "rollback",
        help="undo a promotion in the running mesh",
        description="Takes the index back to the generation of the bundle that was live before, with what was added "
        "since, and points the registry's live channel to that bundle, which the encoders follow without a restart.",
    )
    _registry_argument(rollback)
    rollback.set_defaults(run=commands.rollback)
    return parser


def _demo_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = subparsers.add_parser(
        "demo",
        help="start, load a catalogue, search, stop",
        description="Starts the mesh, loads a catalogue unless its index has it already, shows searches, and stops "
        "everything. Beside a mesh that is up on another index it uses free ports.",
    )
    _catalogue_arguments(demo)
    demo.add_argument("--query", default=_env("QUERY"), help="search for this only (env QUERY)")
    demo.add_argument(
        "--keep",
        action="store_true",
        default=_env("KEEP") not in (None, "0"),
        help="leave the mesh up; `down` stops it (env KEEP=1)",
    )
    _port_argument(demo)
    _mesh_arguments(demo)
    demo.set_defaults(run=commands.demo)


def _catalogue_arguments(parser: argparse.ArgumentParser, what: str | None = None) -> None:
    parser.add_argument(
        "--catalog",
        default=_env("CATALOG"),
        metavar="PATH",
        help=what or ".jsonl, .csv (also .zip, .gz) or .parquet; the bundled catalogue by default (env CATALOG)",
    )
    parser.add_argument(
        "--mapping",
        default=_env("MAPPING"),
        metavar="id=COLUMN,title=COLUMN,…",
        help="which column is which field, where names do not tell (env MAPPING)",
    )


def _mesh_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--replicas",
        default=_env("REPLICAS") or "",
        metavar="SERVICE=COUNT,…",
        help="several processes of a service, which the gateway balances over: query_encoder=3,reranker=2 "
        "(env REPLICAS)",
    )
    parser.add_argument(
        "--mesh",
        default=_env("MESH"),
        choices=MESHES,
        help="; ".join(f"{mesh}: {means}" for mesh, means in MESHES.items()) + " (default none, env MESH)",
    )


def _registry_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--registry", default=_env("REGISTRY"), metavar="PATH", help="a registry (env REGISTRY)")


def _port_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port-base",
        type=int,
        default=_env("PORT_BASE"),
        help="the gateway's port; the other services take the next ones, metrics ports follow 50 above "
        "(env PORT_BASE; one by one: AISLE_<SERVICE>_PORT, AISLE_<SERVICE>_METRICS_PORT)",
    )


def _env(name: str) -> str | None:
    """What `make` passes on; nothing where it is empty."""
    return os.environ.get(name) or None


if __name__ == "__main__":
    sys.exit(main())
