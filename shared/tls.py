"""Certificates as files: read, and read again when they change, since cert-manager and SPIRE renew them in place.

Knows no gRPC: what a port or a channel makes of them is `shared.rpc.tls`.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import structlog

_log = structlog.get_logger()


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
        # Before they are read: what is replaced in between is seen by the first look.
        self._seen = self._stamp()
        self.pem = files.read()
        self._refused: tuple[object, int] = (None, 0)

    def renew(self) -> bool:
        """Whether `pem` is new. Files that cannot be read just now, or whose certificate and key are no pair, leave it
        as it was: they are being replaced, one after the other."""
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return False
            pem = self._files.read()
            self._check_pair()
            # Python reads a pair from files alone: what it checked is what was read if neither was replaced meanwhile.
            if self._stamp() != stamp:
                return False
        except ssl.SSLError as error:
            self._tell(stamp, error)
            return False
        except OSError:
            return False
        self._seen = stamp
        changed = pem != self.pem
        self.pem = pem
        return changed

    def _tell(self, stamp: object, error: ssl.SSLError) -> None:
        # At the first look the other file may be on its way; at the second it is not.
        looks = self._refused[1] + 1 if stamp == self._refused[0] else 1
        self._refused = (stamp, looks)
        if looks == 2:
            files = f"{self._files.certificate}, {self._files.key}"
            _log.warning("a renewed certificate is not used: it and its key are no pair", files=files, why=str(error))

    def _check_pair(self) -> None:
        """Raises `ssl.SSLError`, an `OSError`, where certificate and key do not belong together."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Whether they are strong enough is for whoever presents them to say.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        # Without a password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(self._files.certificate, self._files.key, password="")

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        # Followed to its end, as Kubernetes swaps a link; the inode tells a file that was replaced within one tick.
        paths = (self._files.certificate, self._files.key, self._files.authority)
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in (path.stat() for path in paths))
