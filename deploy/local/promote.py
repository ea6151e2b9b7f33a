"""`promote`: a registry's candidate goes live in the mesh that runs, without a restart and without a failed search.

    judge       the trainer's job says whether the candidate is better, before anything costs time
    bring       see `deploy.local.release`

Stopped at any point and run again, it goes on.
"""

from pathlib import Path

from deploy.local import release
from deploy.local.errors import LocalError
from shared.bundles import BundleError, Channel, Registry


def run(location: str, folder: Path, override: str | None) -> int:
    """The exit status of the job that failed, 0 once the services that follow the registry run its candidate. Raises
    `LocalError` when no mesh is up or the registry has no candidate."""
    known, spec = release.running(folder)
    given = ["--override", override] if override else []
    if status := release.trainer(spec, "promote", location, *given, "--check"):
        return status
    try:
        registry = Registry(location)
        version = registry.channel(Channel.CANDIDATE).version
        if version is None:
            raise LocalError(
                f"registry {location} has no candidate: `python -m services.trainer publish` puts one there"
            )
        return release.bring(known, spec, registry, version, "promote", given)
    except BundleError as error:
        raise LocalError(error.message) from None
