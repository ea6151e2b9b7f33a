"""What goes wrong with a bundle: always a state of the machine's disk, never a caller's request."""

from shared.errors import FailedPreconditionError


class BundleError(FailedPreconditionError):
    """A bundle cannot be found, read or trusted. The message names the bundle, the file and the remedy."""

    reason = "BUNDLE_INVALID"
