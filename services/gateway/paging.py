"""Page tokens: opaque to callers, good for one list of results only, and the same on every replica."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from shared.errors import InvalidArgumentError

_OFFSET_BYTES = 2
_DIGEST_BYTES = 10
"""80 bits: a token that was changed, or belongs to another request, passes with a chance of 1 in 10^24."""


class PageTokens:
    """Issues and reads tokens signed with `key`. Replicas that share a key read each other's tokens."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=32).digest()

    def issue(self, offset: int, request: bytes) -> str:
        """The token of the page that starts at result `offset` (from 0) of the list that `request` identifies."""
        start = offset.to_bytes(_OFFSET_BYTES)
        return base64.urlsafe_b64encode(start + self._sign(start, request)).decode()

    def read(self, token: str, request: bytes) -> int:
        """Where the page starts; 0 for an empty token.

        Raises `InvalidArgumentError` naming `page_token` for anything that `issue` did not make for `request`.
        """
        if not token:
            return 0
        try:
            raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        start, signature = raw[:_OFFSET_BYTES], raw[_OFFSET_BYTES:]
        if not hmac.compare_digest(signature, self._sign(start, request)):
            raise InvalidArgumentError.of(
                "page_token",
                "does not belong to this request: send next_page_token as it was received, with the rest of the "
                "request unchanged",
            )
        return int.from_bytes(start)

    def _sign(self, start: bytes, request: bytes) -> bytes:
        # The offset has a fixed width, so no two (offset, request) pairs give the same bytes.
        return hashlib.blake2b(start + request, key=self._key, digest_size=_DIGEST_BYTES).digest()


def fingerprint(*parts: bytes) -> bytes:
    """What identifies a list of results. `parts` are all that decides it; their boundaries count."""
    return b"".join(len(part).to_bytes(8) + part for part in parts)


def next_offset(results: Sequence[object], offset: int, page_size: int) -> int | None:
    """Where the page after this one starts in `results`; `None` after the last."""
    end = offset + page_size
    return end if end < len(results) else None
