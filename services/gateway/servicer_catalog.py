"""`aisle.gateway.v1.Catalog`: the wire ↔ `catalog.py` and `importing.py`."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

import grpc
from aisle.catalog.v1 import item_pb2
from aisle.common.v1 import row_error_pb2
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc

from services.gateway.catalog import Catalog, ItemRow
from services.gateway.importing import Importer
from services.gateway.ports import RowError
from shared.errors import FieldViolation, InvalidArgumentError
from shared.items import MAX_PAYLOAD_BYTES, violations
from shared.rpc.items import item_from_proto

Context = grpc.aio.ServicerContext[object, object]

_CHECKED_AT_ONCE = 50
"""Items: some 5 ms, which a search beside an import can wait. A message of 1,000 takes up to 100."""


class CatalogServicer(catalog_pb2_grpc.CatalogServicer):
    """The shop's items."""

    def __init__(self, catalog: Catalog, importer: Importer) -> None:
        self._catalog = catalog
        self._importer = importer

    async def ImportItems(
        self, requests: AsyncIterator[catalog_pb2.ImportItemsRequest], context: Context
    ) -> AsyncIterator[catalog_pb2.ImportItemsResponse]:
        """Loads many items."""
        async with aclosing(_batches(requests)) as batches, aclosing(self._importer.run(batches)) as acknowledged:
            async for progress in acknowledged:
                yield catalog_pb2.ImportItemsResponse(
                    rows=progress.rows,
                    accepted=progress.accepted,
                    rejected=progress.rejected,
                    errors=_errors(progress.errors),
                )

    async def UpsertItems(
        self, request: catalog_pb2.UpsertItemsRequest, context: Context
    ) -> catalog_pb2.UpsertItemsResponse:
        """Adds or replaces a few items."""
        written = await self._catalog.upsert(await _rows(request.items))
        return catalog_pb2.UpsertItemsResponse(accepted=written.accepted, errors=_errors(written.errors))

    async def GetItem(self, request: catalog_pb2.GetItemRequest, context: Context) -> catalog_pb2.GetItemResponse:
        """Reads one item."""
        return catalog_pb2.GetItemResponse(item=cast("item_pb2.Item", await self._catalog.get(request.id)))

    async def DeleteItems(
        self, request: catalog_pb2.DeleteItemsRequest, context: Context
    ) -> catalog_pb2.DeleteItemsResponse:
        """Removes items."""
        return catalog_pb2.DeleteItemsResponse(deleted=await self._catalog.delete(request.ids))


async def _batches(requests: AsyncIterator[catalog_pb2.ImportItemsRequest]) -> AsyncGenerator[Sequence[ItemRow], None]:
    async for request in requests:
        yield await _rows(request.items)


async def _rows(items: Sequence[item_pb2.Item]) -> list[ItemRow]:
    """In their order; others get their turns in between."""
    rows: list[ItemRow] = []
    for start in range(0, len(items), _CHECKED_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        rows += map(_row, items[start : start + _CHECKED_AT_ONCE])
    return rows


def _row(pb: item_pb2.Item) -> ItemRow:
    size = pb.ByteSize()
    return ItemRow(pb.id, pb, size, _problems(pb, size))


def _problems(pb: item_pb2.Item, size: int) -> list[FieldViolation]:
    """The rules that `pb` breaks, their paths relative to the item; empty for the item as a whole."""
    try:
        found = violations(item_from_proto(pb))
    except InvalidArgumentError as error:
        found = list(error.violations)
    if size > MAX_PAYLOAD_BYTES:
        found.append(FieldViolation("item", f"must be at most {MAX_PAYLOAD_BYTES:,} bytes in all, is {size:,}"))
    return [FieldViolation(v.field.removeprefix("item").removeprefix("."), v.description) for v in found]


def _errors(errors: Sequence[RowError]) -> list[row_error_pb2.RowError]:
    return [
        row_error_pb2.RowError(row=e.row, item_id=e.item_id, field=e.field, reason=e.reason, message=e.message)
        for e in errors
    ]
