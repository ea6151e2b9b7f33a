"""What the local commands cannot do.

LocalError            the message is fit to print as it stands: it names what to change
├── PortInUseError    nothing was started
└── ServiceFailedError  a service ended, or did not become healthy; everything started was stopped again
"""

from collections.abc import Sequence


class LocalError(Exception):
    """A command that cannot go on. The message names the remedy."""


class PortInUseError(LocalError):
    """At least one port that the mesh needs is taken. `ports` are those."""

    def __init__(self, message: str, ports: Sequence[int]) -> None:
        super().__init__(message)
        self.ports = ports


class ServiceFailedError(LocalError):
    """A service ended, or did not become healthy in time. The message holds the last lines of its log."""
