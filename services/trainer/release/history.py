"""`history`: where a registry's channels point to, and how they came there."""

import argparse
import logging

from services.trainer.release.arguments import add_registry
from shared.bundles import Change, Channel, Registry

log = logging.getLogger(__name__)

HELP = "show where a registry's channels point to, and who moved them when and why"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    add_registry(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    registry = Registry(arguments.registry)
    for channel in Channel:
        history = registry.channel(channel)
        log.info("%s: %s", channel, history.version or "nothing")
        for change in reversed(history.changes):
            log.info("  %s", _line(change))
    return 0


def _line(change: Change) -> str:
    parts = [f"{change.at:%Y-%m-%d %H:%M:%S}", change.action, change.version, f"by {change.by}"]
    if change.why:
        parts.append(f"why: {change.why}")
    if change.override:
        parts.append(f"overridden ({change.override}): {'; '.join(change.objections)}")
    return "  ".join(parts)
