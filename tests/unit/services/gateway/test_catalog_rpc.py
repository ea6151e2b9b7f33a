import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.common.v1 import priority_pb2
from aisle.encoder.v1 import item_encoder_pb2
from aisle.gateway.v1 import catalog_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2
from google.rpc import error_details_pb2

from services.gateway.catalog import ItemRow
from services.gateway.importing import Progress
from services.gateway.servicer_catalog import CatalogServicer
from shared.errors import InvalidArgumentError, UnavailableError, VersionMismatchError
from tests.unit.services.gateway.conftest import Mesh, embeddings, item
from tests.unit.services.gateway.test_gateway_rpc import details, raising, refusal


async def import_(mesh: Mesh, *batches: list[item_pb2.Item]) -> list[catalog_pb2.ImportItemsResponse]:
    requests = [catalog_pb2.ImportItemsRequest(items=batch) for batch in batches]
    return [response async for response in mesh.catalog.ImportItems(iter(requests))]


async def test_import(mesh: Mesh) -> None:
    bad_price = item_pb2.Item(id="p", title="t", price=item_pb2.Money(currency_code="USD", units=1, nanos=1))
    responses = await import_(mesh, [item(at) for at in range(300)], [item(300), bad_price, item_pb2.Item(id="x")])
    assert [(r.rows, r.accepted, r.rejected) for r in responses] == [(300, 300, 0), (303, 301, 2)]
    assert [(e.row, e.item_id, e.field, e.reason) for e in responses[1].errors] == [
        (301, "p", "price.nanos", "INVALID_ARGUMENT"),
        (302, "x", "title", "INVALID_ARGUMENT"),
    ]
    assert [len(r.items) for r in mesh.backend.requests["UpsertItems"]] == [128, 128, 44, 1]
    assert {r.priority for r in mesh.backend.requests["EncodeItems"]} == {priority_pb2.PRIORITY_BULK}


class Reading:
    """An importer that keeps what it is given, and does nothing with it."""

    def __init__(self) -> None:
        self.rows: list[ItemRow] = []

    async def run(self, batches: AsyncIterator[Sequence[ItemRow]]) -> AsyncIterator[Progress]:
        async for rows in batches:
            self.rows += rows
            yield Progress(len(rows), len(rows), 0, [])


async def test_others_get_their_turns_while_a_large_message_is_checked() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def requests() -> AsyncIterator[catalog_pb2.ImportItemsRequest]:
        yield catalog_pb2.ImportItemsRequest(items=map(item, range(1_000)))

    importer: Any = Reading()
    unused: Any = None
    beside = asyncio.create_task(others())
    [response] = [told async for told in CatalogServicer(unused, importer).ImportItems(requests(), unused)]
    beside.cancel()
    assert response.rows == 1_000
    assert [row.payload for row in importer.rows] == [item(at) for at in range(1_000)]
    assert turns >= 10


async def test_an_item_too_large_to_store_names_its_size(mesh: Mesh) -> None:
    large = item_pb2.Item(id="l", title="t", url="x" * 50_000)
    [response] = await import_(mesh, [large, item(1)])
    assert (response.accepted, response.rejected) == (1, 1)
    assert (response.errors[0].field, "48,000 bytes" in response.errors[0].message) == ("", True)


async def test_import_stops_with_the_index_and_says_what_is_safe(mesh: Mesh) -> None:
    calls = 0

    async def upsert(request: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise UnavailableError("milvus")
        return vector_retrieval_pb2.UpsertItemsResponse(accepted=len(request.items))

    mesh.backend.on["UpsertItems"] = upsert
    requests = [catalog_pb2.ImportItemsRequest(items=[item(at)]) for at in range(3)]
    call = mesh.catalog.ImportItems(iter(requests))
    assert (await call.read()).rows == 1
    assert (await refusal(call.read())).code() is grpc.StatusCode.UNAVAILABLE


async def test_an_empty_batch_ends_the_stream(mesh: Mesh) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await import_(mesh, [])
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_upsert(mesh: Mesh) -> None:
    response = await mesh.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=[item(1), item(2)]))
    assert (response.accepted, list(response.errors)) == (2, [])
    [sent] = mesh.backend.requests["UpsertItems"]
    assert (list(sent.items), sent.embeddings) == ([item(1), item(2)], embeddings(2))
    assert mesh.backend.requests["EncodeItems"][0].priority == priority_pb2.PRIORITY_INTERACTIVE


async def test_upsert_names_every_field_at_fault_and_writes_nothing(mesh: Mesh) -> None:
    items = [item(1), item_pb2.Item(id="x"), item_pb2.Item(title="t", rating=9.0)]
    error = await refusal(mesh.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=items)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    fields = [v.field for v in details(error, error_details_pb2.BadRequest).field_violations]
    assert fields == ["items[1].title", "items[2].id", "items[2].rating"]
    assert mesh.backend.requests == {}


async def test_a_refusal_of_many_items_still_arrives(mesh: Mesh) -> None:
    bad = item_pb2.Item(id="x", title="t")
    bad.attributes["n" * 5000].text.append("v" * 500)
    error = await refusal(mesh.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=[bad] * 100)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(details(error, error_details_pb2.BadRequest).field_violations) == 10


async def test_an_item_that_cannot_be_encoded_fails_alone(mesh: Mesh) -> None:
    async def encode(request: Any) -> Any:
        response = item_encoder_pb2.EncodeItemsResponse(embeddings=embeddings(len(request.items)))
        response.errors.add(row=0, reason="ENCODE_FAILED", message="no")
        return response

    mesh.backend.on["EncodeItems"] = encode
    response = await mesh.catalog.UpsertItems(catalog_pb2.UpsertItemsRequest(items=[item(1), item(2)]))
    assert response.accepted == 1
    assert [(e.row, e.item_id, e.reason) for e in response.errors] == [(0, "id-1", "ENCODE_FAILED")]
    assert [i.id for i in mesh.backend.requests["UpsertItems"][0].items] == ["id-2"]


@pytest.mark.parametrize(
    ("method", "error", "code"),
    [
        ("UpsertItems", VersionMismatchError("v2", "v1"), grpc.StatusCode.FAILED_PRECONDITION),
        ("UpsertItems", InvalidArgumentError.of("embeddings.data", "NaN"), grpc.StatusCode.INTERNAL),
        ("EncodeItems", UnavailableError("item_encoder"), grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_upsert_failing_as_a_whole(mesh: Mesh, method: str, error: Exception, code: grpc.StatusCode) -> None:
    mesh.backend.on[method] = raising(error)
    request = catalog_pb2.UpsertItemsRequest(items=[item(1)])
    assert (await refusal(mesh.catalog.UpsertItems(request))).code() is code


@pytest.mark.parametrize("rows", [0, 3])
async def test_vectors_that_do_not_fit_the_items_are_not_written(mesh: Mesh, rows: int) -> None:
    async def encode(request: Any) -> Any:
        return item_encoder_pb2.EncodeItemsResponse(embeddings=embeddings(rows))

    mesh.backend.on["EncodeItems"] = encode
    request = catalog_pb2.UpsertItemsRequest(items=[item(at) for at in range(5)])
    assert (await refusal(mesh.catalog.UpsertItems(request))).code() is grpc.StatusCode.INTERNAL
    assert "UpsertItems" not in mesh.backend.requests


async def test_get_and_delete(mesh: Mesh) -> None:
    response = await mesh.catalog.GetItem(catalog_pb2.GetItemRequest(id="a"))
    assert response.item.id == "a"
    error = await refusal(mesh.catalog.GetItem(catalog_pb2.GetItemRequest(id="gone")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert (await mesh.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest(ids=["a", "b"]))).deleted == 2
    error = await refusal(mesh.catalog.DeleteItems(catalog_pb2.DeleteItemsRequest()))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
