"""An authority of this machine's own, and certificates from it: `spiffe://aisle.local/<service>`. Needs `openssl`.

    authority = Authority.create(folder)
    authority.issue("gateway")             # folder/gateway.crt, folder/gateway.key

For one machine and for tests. In a cluster cert-manager, SPIRE or a mesh does this.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.local.errors import LocalError
from shared.tls import TlsFiles

TRUST_DOMAIN = "spiffe://aisle.local"
_DAYS = {"ca": 3650}
_SERVICE_DAYS = 30
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def spiffe_id(name: str) -> str:
    """`query_encoder` → `spiffe://aisle.local/query-encoder`."""
    return f"{TRUST_DOMAIN}/{dns_name(name)}"


def dns_name(name: str) -> str:
    """A service as certificates and Kubernetes spell it: `query-encoder`."""
    return name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Authority:
    """Issues certificates into `folder`, where its own lies; keys are readable by their owner alone."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> "Authority":
        """The one in `folder`, made if there is none. Raises `LocalError` where `openssl` does not do it."""
        authority = cls(folder)
        if not authority.certificate.is_file():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            rights = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
            authority._make("ca", "/CN=Aisle local authority", rights, ())
        return authority

    @property
    def certificate(self) -> Path:
        """What others trust."""
        return self.folder / "ca.crt"

    def files(self, name: str) -> TlsFiles:
        """Where the certificate of `name` lies, issued or not."""
        return TlsFiles(self.folder / f"{name}.crt", self.folder / f"{name}.key", self.certificate)

    def issue(self, name: str, *, uri: str | None = None, also: Sequence[str] = ()) -> TlsFiles:
        """A certificate for `name`, replacing the one it has: good for the URI `uri` (default: its SPIFFE name; empty:
        none), for its DNS name and those of the services `also`, and for this machine."""
        uris = [spiffe_id(name) if uri is None else uri]
        names = [*(f"DNS:{dns_name(served)}" for served in (name, *also)), "DNS:localhost", "IP:127.0.0.1"]
        sans = ",".join([*(f"URI:{given}" for given in uris if given), *names])
        signed = ("-CA", str(self.certificate), "-CAkey", str(self.folder / "ca.key"))
        extensions = (
            f"subjectAltName={sans}",
            "basicConstraints=critical,CA:FALSE",
            "extendedKeyUsage=serverAuth,clientAuth",
        )
        self._make(name, f"/CN={dns_name(name)}", extensions, signed)
        return self.files(name)

    def _make(self, name: str, subject: str, extensions: Sequence[str], signed: Sequence[str]) -> None:
        with TemporaryDirectory(dir=self.folder) as made:
            key, certificate = Path(made, "key"), Path(made, "crt")
            added = [part for extension in extensions for part in ("-addext", extension)]
            out = ("-keyout", str(key), "-out", str(certificate), "-days", str(_DAYS.get(name, _SERVICE_DAYS)))
            command = ["openssl", "req", "-x509", *_KEY, "-subj", subject, *added, *signed, *out]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except FileNotFoundError:
                raise LocalError("certificates are made by openssl, which is not installed") from None
            if done.returncode:
                raise LocalError(f"openssl made no certificate for {name}: {done.stderr.strip()}")
            key.chmod(0o600)
            key.replace(self.folder / f"{name}.key")
            certificate.replace(self.folder / f"{name}.crt")
