"""Who is who in a mesh with mTLS on this machine, and who may call whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.local.certificates import Authority, spiffe_id
from deploy.local.kinds import JOBS, KINDS, OPERATOR, PROXY, Kind
from shared.tls import TlsFiles


def callers(kind: Kind) -> tuple[str, ...]:
    """Who has a road to the service `kind`, by the names of their certificates, whatever stands on the road."""
    return (*(user.name for user in KINDS if kind.name in user.uses), *kind.callers)


@dataclass(frozen=True, slots=True)
class Identities:
    """The certificates in `folder`. In a `proxied` mesh services are called by the proxy, which asks who calls it."""

    folder: Path
    proxied: bool = False

    def issue(self) -> None:
        """A certificate for everyone, a new one for who has one: what runs takes it up."""
        authority = Authority.create(self.folder)
        services = [kind.name for kind in KINDS]
        for name in (*services, OPERATOR, JOBS):
            authority.issue(name)
        if self.proxied:
            # It answers in the place of each.
            authority.issue(PROXY.name, also=services)

    def files(self, name: str) -> TlsFiles:
        """The certificate of `name`."""
        return Authority(self.folder).files(name)

    def settings(self, kind: Kind) -> Mapping[str, str]:
        """What a service is told, as environment variables."""
        near = (PROXY.name, *kind.callers) if self.proxied else callers(kind)
        names = ",".join(map(spiffe_id, near))
        return {**self.certificate(kind.prefix, kind.name), f"{kind.prefix}MTLS_CALLERS": names}

    def certificate(self, prefix: str, name: str) -> Mapping[str, str]:
        """The same for a process that only calls."""
        files = self.files(name)
        return {
            f"{prefix}MTLS_CERTIFICATE_FILE": str(files.certificate),
            f"{prefix}MTLS_KEY_FILE": str(files.key),
            f"{prefix}MTLS_CA_FILE": str(files.authority),
        }
