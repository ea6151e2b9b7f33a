"""Registries for tests."""

from datetime import UTC, datetime

from shared.bundles import Action, Bundle, Change, Channel, Registry


def put(location: str, channel: Channel, *bundles: Bundle) -> Registry:
    """A registry whose `channel` points to the last of `bundles`, and did to the others before."""
    registry = Registry(location)
    for bundle in bundles:
        registry.add(bundle.path, bundle.manifest)
        with registry.changing(channel) as history:
            registry.move(channel, change(bundle.version, history.version))
    return registry


def change(version: str, before: str | None = None) -> Change:
    return Change(version=version, action=Action.PROMOTE, before=before, at=datetime.now(UTC), by="a test")
