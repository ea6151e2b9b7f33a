"""A least-recently-used map bounded in bytes, because vectors and texts have sizes and entries do not."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_BYTES = 256
"""What the map, the key object and the value object cost besides their contents; measured on CPython 3.11."""


class BytesLRU(Generic[K, V]):
    """`size(key, value)` gives the bytes of an entry's contents. Not thread-safe."""

    def __init__(self, max_bytes: int, size: Callable[[K, V], int]) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must not be negative, got {max_bytes}; 0 keeps nothing")
        self.max_bytes = max_bytes
        self.bytes = 0
        self._size = size
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, which is now the most recently used, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def clear(self) -> None:
        """Drops everything."""
        self._entries.clear()
        self.bytes = 0

    def put(self, key: K, value: V) -> None:
        """Store, and drop the least recently used until the bound holds; what is larger than all of it is not kept."""
        size = self._size(key, value) + ENTRY_BYTES
        if (old := self._entries.pop(key, None)) is not None:
            self.bytes -= old[1]
        if size > self.max_bytes:
            return
        self._entries[key] = (value, size)
        self.bytes += size
        while self.bytes > self.max_bytes:
            _, (_, dropped) = self._entries.popitem(last=False)
            self.bytes -= dropped
