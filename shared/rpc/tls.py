"""mTLS for gRPC: what a port demands, what a channel presents, and who may call.

The handshake ends a connection whose certificate is missing or of another authority, before there is a call to answer:
its caller sees UNAVAILABLE. A caller that passed it is asked for its name by `Callers`.
"""

from collections.abc import Mapping
from typing import Protocol

import grpc

from shared.errors import PermissionDeniedError, UnauthenticatedError
from shared.tls import Pem, Renewed, TlsFiles

_SCHEME = "spiffe://"
_SANS = "x509_subject_alternative_name"


class Peer(Protocol):
    """The part of a call's context that knows its caller."""

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """What the handshake found out, by gRPC's names."""


class Callers:
    """Who may call: those with one of `allowed` (`spiffe://aisle.local/gateway`) in their certificate, or, where it is
    empty, everyone with a name from the authority."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = allowed

    def admit(self, peer: Peer) -> None:
        """Raises `UnauthenticatedError` for a caller without a name, `PermissionDeniedError` for one not allowed."""
        # gRPC's types say str, what comes is bytes, and a list for each key.
        sans = [san.decode() for san in peer.auth_context().get(_SANS) or ()]
        names = [san for san in sans if san.startswith(_SCHEME)]
        if not names:
            raise UnauthenticatedError(f"the caller's certificate holds no name ({_SCHEME}… as a URI SAN)")
        if self._allowed and self._allowed.isdisjoint(names):
            raise PermissionDeniedError(f"{names[0]} may not call this service; mtls_callers says who may")


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """A certificate of the authority is demanded of every caller; renewed files count from the next connection on.

    Raises `OSError` when a file cannot be read.
    """
    renewed = Renewed(files)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        return _configuration(renewed.pem) if renewed.renew() else None

    # `None` means that nothing is new, which its types do not know.
    return grpc.dynamic_ssl_server_credentials(
        _configuration(renewed.pem),
        fetch,  # type: ignore[arg-type]
        require_client_authentication=True,
    )


def channel_credentials(pem: Pem) -> grpc.ChannelCredentials:
    """Presents the certificate of `pem`, and takes servers that its authority vouches for."""
    return grpc.ssl_channel_credentials(pem.authority, pem.key, pem.certificate)


def expect_server(name: str) -> tuple[str, str]:
    """The channel option for "its certificate must be for `name`", wherever it answers: an address says where
    something is, not what it is. `name` in snake case; certificates spell it as Kubernetes does (`query-encoder`)."""
    return "grpc.ssl_target_name_override", name.replace("_", "-")


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.authority)
