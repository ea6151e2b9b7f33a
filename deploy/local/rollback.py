"""`rollback`: what was live in a registry before comes back into the mesh that runs, the way a candidate goes live.

The index goes back to the generation before, which is given what was added since. Stopped before the channel has moved
and run again, it goes on; from then on it goes back one version more.
"""

from pathlib import Path

from deploy.local import release
from deploy.local.errors import LocalError
from shared.bundles import BundleError, Channel, Registry


def run(location: str, folder: Path) -> int:
    """The exit status of the job that failed, 0 once the services that follow the registry run what was live before.
    Raises `LocalError` when no mesh is up or nothing was live before."""
    known, spec = release.running(folder)
    try:
        registry = Registry(location)
        live = registry.channel(Channel.LIVE)
        if live.before is None:
            raise LocalError(f"registry {location} has no bundle that was live before {live.version or 'now'}")
        return release.bring(known, spec, registry, live.before, "rollback")
    except BundleError as error:
        raise LocalError(error.message) from None
