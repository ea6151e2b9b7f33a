"""When items were deleted, kept for a while beside the generations, so that a change which comes late cannot bring an
item back: of an item's upserts and deletes the latest one wins, in whatever order they arrive.

A collection of its own, `<index>__deleted`, made with the first delete: a delete is about an item and outlives the
generation it was in.
"""

import time
from collections.abc import Iterable

from pymilvus import CollectionSchema, DataType, MilvusClient
from pymilvus.milvus_client.index import IndexParams

from services.vector_retrieval import expressions
from shared.items import MAX_ID_BYTES

_MICROS = 1_000_000
_PURGE_EVERY_S = 3_600.0
_NOWHERE = [1.0, 0.0]
"""A collection has a vector, wanted or not."""


class Tombstones:
    """Those of one index. Its methods block: they are steps of a write."""

    def __init__(self, index: str, kept_s: float) -> None:
        self.collection = f"{index}__deleted"
        self._kept_s = kept_s
        self._loaded = False
        self._purged_at = -float("inf")

    def mark(self, client: MilvusClient, ids: Iterable[str]) -> None:
        """The items are deleted now, whether they are there or not."""
        if not self.there(client):
            self._make(client)
        now = time.time()
        client.upsert(
            self.collection,
            [{"id": i, "vector": _NOWHERE, "deleted_at": int(now * _MICROS)} for i in dict.fromkeys(ids)],
            retry_times=0,
        )
        if now - self._purged_at > _PURGE_EVERY_S:
            self._purged_at = now
            old = int((now - self._kept_s) * _MICROS)
            client.delete(self.collection, filter=f"deleted_at < {old}", retry_times=0)

    def times(self, client: MilvusClient, ids: Iterable[str]) -> dict[str, int]:
        """Of the items that were deleted, when, in microseconds since 1970."""
        if not self.there(client):
            return {}
        found = client.query(
            self.collection,
            filter=expressions.ids_in(ids),
            output_fields=["id", "deleted_at"],
            consistency_level="Strong",
            retry_times=0,
        )
        return {row["id"]: row["deleted_at"] for row in found}

    def there(self, client: MilvusClient) -> bool:
        """Whether anything was ever deleted; asked each time, for another replica may have been the first to."""
        there = bool(client.has_collection(self.collection, retry_times=0))
        if there and not self._loaded:
            self._open(client)
        self._loaded = there
        return there

    def _make(self, client: MilvusClient) -> None:
        schema = CollectionSchema([], auto_id=False, enable_dynamic_field=False, check_fields=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=len(_NOWHERE))
        schema.add_field("deleted_at", DataType.INT64)
        client.create_collection(self.collection, schema=schema, consistency_level="Bounded")
        self._open(client)

    def _open(self, client: MilvusClient) -> None:
        # Another replica may be just making it: what it is about to do, and is done here, has no effect then.
        if not client.list_indexes(self.collection):
            params = IndexParams()
            params.add_index("vector", index_type="FLAT", metric_type="L2")
            client.create_index(self.collection, params, sync=False)
        client.load_collection(self.collection)
        self._loaded = True
