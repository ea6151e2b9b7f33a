"""Page tokens: opaque to callers, good for one list of results only, and the same on every replica.

The pages of a list are cut from the items that its first page found, so a token names the items not shown yet, by
digests of their ids. Whatever is written between two pages, no item is on both, and none of the list falls between
them; what is added meanwhile belongs to a list of its own.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from shared.errors import InvalidArgumentError

_COUNT_BYTES = 2
_ID_BYTES = 6
"""48 bits: among 1,000 candidates, one that is not of the list passes for one of 1,000 that are with a chance of 1 in
10^8. 100 items make a token of 820 characters, 1,000 one of 8 kB."""
_DIGESTS = 50_000
"""Kept, of the items found most lately, some 10 MB: a search that has a second page asks for a hundred."""
_SIGNATURE_BYTES = 10
"""80 bits: a token that was changed, or belongs to another request, passes with a chance of 1 in 10^24."""


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left of a list: how many items were shown, and the digests of those that were not."""

    shown: int
    digests: frozenset[bytes]


class PageTokens:
    """Issues and reads tokens signed with `key`. Replicas that share a key read each other's tokens."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=32).digest()
        self.digest = lru_cache(_DIGESTS)(self._digest)
        """What stands for an id in a token: it tells nothing of the id to whoever lacks the key."""

    def _digest(self, item_id: str) -> bytes:
        return hashlib.blake2b(item_id.encode(), key=self._key, digest_size=_ID_BYTES).digest()

    def issue(self, shown: int, left: Iterable[bytes], request: bytes) -> str:
        """The token of the page after `shown` items of the list that `request` identifies; `left` are the digests of
        the others."""
        # In order, so that it does not say in which they will be shown.
        told = shown.to_bytes(_COUNT_BYTES) + b"".join(sorted(left))
        return base64.urlsafe_b64encode(told + self._sign(told, request)).decode()

    def read(self, token: str, request: bytes) -> Rest | None:
        """What is left of the list; `None` for an empty token, which asks for the first page.

        Raises `InvalidArgumentError` naming `page_token` for anything that `issue` did not make for `request`.
        """
        if not token:
            return None
        try:
            raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        told, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(told, request)):
            raise InvalidArgumentError.of(
                "page_token",
                "does not belong to this request: send next_page_token as it was received, with the rest of the "
                "request unchanged",
            )
        digests = (told[at : at + _ID_BYTES] for at in range(_COUNT_BYTES, len(told), _ID_BYTES))
        return Rest(int.from_bytes(told[:_COUNT_BYTES]), frozenset(digests))

    def _sign(self, told: bytes, request: bytes) -> bytes:
        return hashlib.blake2b(fingerprint(told, request), key=self._key, digest_size=_SIGNATURE_BYTES).digest()


def fingerprint(*parts: bytes) -> bytes:
    """What identifies a list of results. `parts` are all that decides it; their boundaries count."""
    return b"".join(len(part).to_bytes(8) + part for part in parts)
