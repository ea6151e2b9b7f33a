"""Items' texts, kept: to render one takes ten times as long as to recognise the item that it was rendered from, and a
shop's searches find the same items again and again."""

import hashlib
import sys
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from shared.bundles import Bundle, ItemLike
from shared.inference.lru import BytesLRU

CACHE_BYTES = 32 << 20
"""Some 50,000 items of 300 characters: more than their token vectors are kept of by default."""


class ItemMessage(ItemLike, Protocol):
    """An item as it came over the wire: it has every field that templates read, and a conversion would cost more than
    the rendering."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """What it was, or would be, sent as."""


class _Key(NamedTuple):
    version: str
    """Whose template it is."""
    digest: bytes
    """Of the item as it came: what has another price is rendered once more, to the same text."""


class ItemTexts:
    """Bounded in bytes. Belongs to one event loop."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._known: BytesLRU[_Key, str] = BytesLRU(max_bytes, lambda key, text: sys.getsizeof(text))

    def of(self, bundle: Bundle, items: Iterable[ItemMessage]) -> list[str]:
        """`bundle.item_text` of each."""
        return [self._text(bundle, item) for item in items]

    def _text(self, bundle: Bundle, item: ItemMessage) -> str:
        key = _Key(bundle.version, hashlib.blake2b(item.SerializeToString(), digest_size=16).digest())
        text = self._known.get(key)
        if text is None:
            text = bundle.item_text(item)
            self._known.put(key, text)
        return text
