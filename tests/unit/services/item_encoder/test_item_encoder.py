"""`ItemEncoder` as a client sees it."""

from typing import TypeAlias

import grpc
import numpy as np
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.common.v1 import model_pb2
from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc

from services.item_encoder.__main__ import build
from services.item_encoder.settings import ItemEncoderSettings
from shared.bundles import Bundle
from shared.inference import BackendName
from shared.rpc.embeddings import unpack
from tests.unit.services.conftest import Serve

Stub: TypeAlias = "item_encoder_pb2_grpc.ItemEncoderAsyncStub"
Request = item_encoder_pb2.EncodeItemsRequest


@pytest.fixture
async def encoder(serve: Serve, bundle: Bundle) -> Stub:
    settings = ItemEncoderSettings(bundle=str(bundle.path), backend=BackendName.DUMMY)
    return item_encoder_pb2_grpc.ItemEncoderStub(await serve(build, settings))


def lamp(item_id: str = "1", **fields: object) -> item_pb2.Item:
    return item_pb2.Item(id=item_id, title="lamp", **fields)  # type: ignore[arg-type]


async def test_what_the_template_reads_changes_the_vector_and_what_it_does_not_read_does_not(encoder: Stub) -> None:
    items = [lamp("1"), lamp("2"), lamp("3", brand="aurora")]
    rows = unpack((await encoder.EncodeItems(Request(items=items))).embeddings)
    np.testing.assert_array_equal(rows[0], rows[1])
    assert not np.allclose(rows[0], rows[2])


async def test_an_item_that_breaks_a_rule_fails_alone(encoder: Stub) -> None:
    bad_money = item_pb2.Item(id="4", title="vase", price=item_pb2.Money(currency_code="EUR", nanos=1))
    items = [lamp(), item_pb2.Item(id="2"), item_pb2.Item(title="no id"), bad_money, lamp("5")]
    response = await encoder.EncodeItems(Request(items=items))
    assert [(error.row, error.item_id, error.field) for error in response.errors] == [
        (1, "2", "title"),
        (2, "", "id"),
        (3, "4", "price.nanos"),
    ]
    norms = np.linalg.norm(unpack(response.embeddings), axis=1)
    np.testing.assert_allclose(norms, [1, 0, 0, 0, 1], atol=1e-5)


async def test_a_batch_of_nothing_but_bad_items_is_answered(encoder: Stub) -> None:
    response = await encoder.EncodeItems(Request(items=[item_pb2.Item()]))
    assert [error.row for error in response.errors] == [0]
    assert not unpack(response.embeddings).any()


@pytest.mark.parametrize("count", [0, 257])
async def test_too_few_or_too_many_items_are_refused(encoder: Stub, count: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="items: must have 1 to 256 entries") as refused:
        await encoder.EncodeItems(Request(items=[lamp()] * count))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_get_model_says_what_answers(encoder: Stub, bundle: Bundle) -> None:
    model = (await encoder.GetModel(model_pb2.GetModelRequest())).model
    assert (model.version, model.kind, model.max_tokens) == (bundle.version, "bi-encoder", 48)
