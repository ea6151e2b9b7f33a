"""`rollback`: a registry's live bundle gives way to the one before it."""

import argparse
import logging

from services.trainer.errors import JobError
from services.trainer.release.arguments import add_index, add_registry, add_trace, now
from services.trainer.release.index import live_version
from shared.bundles import Action, BundleKind, Change, Channel, Registry

log = logging.getLogger(__name__)

HELP = "make the bundle live again that was live before"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    add_registry(parser)
    add_index(parser)
    add_trace(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    registry = Registry(arguments.registry)
    rollback(registry, arguments.by, arguments.why, index=arguments.index, no_index=arguments.no_index)
    return 0


def rollback(registry: Registry, by: str, why: str, *, index: str | None = None, no_index: bool = False) -> None:
    """Done twice it goes back two versions. Raises `JobError` where there is none before, or the index is not back."""
    with registry.changing(Channel.LIVE) as live:
        if live.version is None or live.before is None:
            raise JobError(f"registry {registry.location} has no bundle that was live before {live.version or 'now'}")
        _check_index(registry, live.before, index, no_index=no_index)
        change = Change(
            version=live.before, action=Action.ROLLBACK, before=live.came_from(live.before), at=now(), by=by, why=why
        )
        registry.move(Channel.LIVE, change)
    log.info("bundle %s is live in %s again, in place of %s", change.version, registry.location, live.version)


def _check_index(registry: Registry, version: str, index: str | None, *, no_index: bool) -> None:
    if no_index or registry.manifest(version).kind is not BundleKind.BI_ENCODER:
        return
    if index is None:
        raise JobError(
            f"an encoder and its index go together: re-index first with an item encoder of {version}, which goes back "
            "to the generation before, and give --index HOST:PORT, or --no-index where no index holds this registry's "
            "vectors"
        )
    if (found := live_version(index)) != version:
        raise JobError(
            f"the index at {index} is searched by vectors of {found or 'no model yet'}, not of {version}: re-index "
            "first with an item encoder of that version; queries go on being answered meanwhile"
        )
