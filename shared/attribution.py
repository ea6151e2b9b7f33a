"""Attribution tokens: what the gateway knows of a response, carried by the caller to the events it leads to.

    tokens = AttributionTokens(key)
    token = tokens.issue(Attribution(request_id="…", surface="SEARCH", query="lamp"), ["a", "b", "c"])
    tokens.read(token, "b")        # the same attribution, with position 1

A token carries everything, so nothing has to be kept between response and event, and is signed, so that nobody else
can make one. It is not encrypted: it holds what the caller was told anyway, item ids as digests. A page of 10 results
takes 250 to 350 characters, one of 100 about 1,000; a query of the longest kind adds its own length, in bytes, by 4/3
at most.
"""

import base64
import binascii
import hashlib
import hmac
import json
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

DEVELOPMENT_KEY = "aisle"
"""What signs tokens where nobody set a key: the same everywhere, so it guards against mistakes and not forgery."""
MAX_TOKEN_CHARS = 8_192
"""Above any token for 100 results and a query of 500 characters, whatever the script."""

_FORMAT = b"\x01"
_ITEM_BYTES = 6
"""Of a digest of each item's id: an item that was not on the page is taken for one of 100 that were with a chance of
4 in 10^13."""
_SIGNATURE_BYTES = 12
_COUNT_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What led to an event: a response of the gateway. Empty where there was none of it."""

    request_id: str = ""
    surface: str = ""
    """`SEARCH`, `HOME`, `SIMILAR_ITEMS`, `BASKET` or `AFTER_SEARCH`."""
    query: str = ""
    experiment_arm: str = ""
    encoder_version: str = ""
    index_version: str = ""
    reranker_version: str = ""
    generation: str = ""
    candidate_count: int = 0
    position: int | None = None
    """Of the item in the whole list, from 0; `None` where the page did not have it."""


class AttributionTokens:
    """Issues and reads tokens signed with `key`; processes that share a key read each other's."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=32, person=b"attribution").digest()

    def issue(self, attribution: Attribution, item_ids: Sequence[str], first_position: int = 0) -> str:
        """The token of a response whose page shows `item_ids` (at most 65,535), the first of them at
        `first_position` of the list. `attribution.position` is not carried: `read` finds it. URL-safe base64."""
        told = json.dumps(
            [*astuple(replace(attribution, position=first_position))], ensure_ascii=False, separators=(",", ":")
        ).encode()
        packed = zlib.compress(told, 9, wbits=-zlib.MAX_WBITS)
        body = b"".join((_FORMAT, len(item_ids).to_bytes(_COUNT_BYTES), *map(_digest, item_ids), packed))
        return base64.urlsafe_b64encode(self._sign(body) + body).rstrip(b"=").decode()

    def read(self, token: str, item_id: str = "") -> Attribution | None:
        """What the token says, with the position of `item_id`; `None` for anything that `issue` did not make with
        this key."""
        raw = _decode(token)
        signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(body)) or not body.startswith(_FORMAT):
            return None
        start = len(_FORMAT) + _COUNT_BYTES
        end = start + _ITEM_BYTES * int.from_bytes(body[len(_FORMAT) : start])
        *parts, first_position = json.loads(zlib.decompress(body[end:], wbits=-zlib.MAX_WBITS))
        found = _index(body[start:end], item_id)
        return Attribution(
            **dict(zip(_CARRIED, parts, strict=True)), position=None if found is None else first_position + found
        )

    def _sign(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, key=self._key, digest_size=_SIGNATURE_BYTES).digest()


_CARRIED = tuple(name for name in Attribution.__dataclass_fields__ if name != "position")


def _digest(item_id: str) -> bytes:
    return hashlib.blake2b(item_id.encode(), digest_size=_ITEM_BYTES).digest()


def _index(digests: bytes, item_id: str) -> int | None:
    if not item_id:
        return None
    wanted = _digest(item_id)
    return next(
        (at for at in range(len(digests) // _ITEM_BYTES) if digests[at * _ITEM_BYTES :][:_ITEM_BYTES] == wanted), None
    )


def _decode(token: str) -> bytes:
    if len(token) > MAX_TOKEN_CHARS:
        return b""
    try:
        raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return b""
    # Of several spellings of the same bytes, only the one that was issued.
    return raw if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == token else b""
