"""Items' texts, kept: to render one takes ten times as long as to recognise the item that it was rendered from, and a
shop's searches find the same items again and again."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from aisle.catalog.v1 import item_pb2

from shared.bundles import Bundle
from shared.inference.lru import BytesLRU

CACHE_BYTES = 32 << 20
"""Some 40,000 items of 300 characters: as many as their token vectors are kept of by default, and more."""


class _Key(NamedTuple):
    version: str
    """Whose template it is."""
    digest: bytes
    """Of the item as it came: what has another price is rendered once more, to the same text."""


class ItemTexts:
    """Bounded in bytes. Belongs to one event loop."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._known: BytesLRU[_Key, str] = BytesLRU(max_bytes, lambda key, text: 4 * len(text))

    def of(self, bundle: Bundle, items: Iterable[item_pb2.Item]) -> list[str]:
        """`bundle.item_text` of each."""
        return [self._text(bundle, item) for item in items]

    def _text(self, bundle: Bundle, item: item_pb2.Item) -> str:
        key = _Key(bundle.version, hashlib.blake2b(item.SerializeToString(), digest_size=16).digest())
        text = self._known.get(key)
        if text is None:
            # The proto's Item has every field that templates read: a conversion would cost more than the rendering.
            text = bundle.item_text(item)
            self._known.put(key, text)
        return text
