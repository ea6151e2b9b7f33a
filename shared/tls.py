"""Certificates as files: read, and read again when they change, since cert-manager and SPIRE renew them in place.

Knows no gRPC: what a port or a channel makes of them is `shared.rpc.tls`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Pem(NamedTuple):
    """What three files held at one moment, as PEM."""

    certificate: bytes
    key: bytes
    authority: bytes


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Who this process is (`certificate`, with its intermediates, and `key`) and whose word it takes for who others
    are (`authority`, one certificate or several)."""

    certificate: Path
    key: Path
    authority: Path

    def read(self) -> Pem:
        """All three. Raises `OSError` when one cannot be read."""
        return Pem(self.certificate.read_bytes(), self.key.read_bytes(), self.authority.read_bytes())


class Renewed:
    """The newest readable content of `files`. Raises `OSError` at once where there is none to begin with."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self.pem = files.read()
        self._seen = self._stamp()

    def renew(self) -> bool:
        """Whether `pem` is new. Files that cannot be read just now leave it as it was: they are being replaced."""
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return False
            pem = self._files.read()
        except OSError:
            return False
        self._seen = stamp
        changed = pem != self.pem
        self.pem = pem
        return changed

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        # Followed to its end, as Kubernetes swaps a link; the inode tells a file that was replaced within one tick.
        paths = (self._files.certificate, self._files.key, self._files.authority)
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in (path.stat() for path in paths))
