"""Who it was, as a keyed hash: the shop's own ids are neither stored nor logged."""

import hashlib
import hmac

KEY_BYTES = 16
"""Of HMAC-SHA256: among 10^9 users, two share a key with a chance of 1 in 10^21."""


class Identities:
    """Hashes ids with `key`; without it, an id cannot be tried."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def user(self, user_id: str) -> bytes:
        """The key of a user, 16 bytes."""
        return self._hash(b"user", user_id)

    def session(self, session_id: str) -> bytes:
        """The key of a visit, 16 bytes: another than that of a user of the same id."""
        return self._hash(b"session", session_id)

    def _hash(self, kind: bytes, identity: str) -> bytes:
        return hmac.digest(self._key, kind + b"\0" + identity.encode(), hashlib.sha256)[:KEY_BYTES]
