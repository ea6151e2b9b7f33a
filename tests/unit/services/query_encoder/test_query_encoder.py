"""`QueryEncoder` as a client sees it."""

from typing import TypeAlias

import grpc
import numpy as np
import pytest
from aisle.common.v1 import model_pb2, priority_pb2
from aisle.encoder.v1 import query_encoder_pb2, query_encoder_pb2_grpc

from services.query_encoder.__main__ import build
from services.query_encoder.settings import QueryEncoderSettings
from shared.bundles import Bundle
from shared.inference import BackendName
from shared.rpc.embeddings import unpack
from tests.unit.services.conftest import Serve

Stub: TypeAlias = "query_encoder_pb2_grpc.QueryEncoderAsyncStub"
Request = query_encoder_pb2.EncodeQueriesRequest


@pytest.fixture
async def encoder(serve: Serve, bundle: Bundle) -> Stub:
    settings = QueryEncoderSettings(bundle=str(bundle.path), backend=BackendName.DUMMY)
    return query_encoder_pb2_grpc.QueryEncoderStub(await serve(build, settings))


async def test_rows_come_in_the_order_of_the_queries_with_the_model_version(encoder: Stub, bundle: Bundle) -> None:
    response = await encoder.EncodeQueries(Request(queries=["red lamp", "blue chair", "red lamp"]))
    rows = unpack(response.embeddings)
    assert rows.shape == (3, 8)
    assert response.embeddings.model_version == bundle.version
    np.testing.assert_array_equal(rows[0], rows[2])
    assert not np.allclose(rows[0], rows[1])
    assert not response.errors


async def test_a_batch_gives_what_each_query_gives_alone(encoder: Stub) -> None:
    queries = [f"query {letter}" for letter in "abcdef"]
    together = unpack((await encoder.EncodeQueries(Request(queries=queries))).embeddings)
    for row, query in zip(together, queries, strict=True):
        alone = unpack((await encoder.EncodeQueries(Request(queries=[query]))).embeddings)
        np.testing.assert_allclose(alone[0], row, atol=1e-6)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request(), "queries"),
        (Request(queries=["lamp"] * 257), "queries"),
        (Request(queries=["lamp"] * 33, include_token_embeddings=True), "queries"),
        (Request(queries=["lamp", "  "]), "queries[1]"),
        (Request(queries=["x" * 2001]), "queries[0]"),
        (Request(queries=["lamp"], priority=7), "priority"),  # type: ignore[arg-type]
    ],
)
async def test_a_bad_request_names_its_field(encoder: Stub, request_: Request, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await encoder.EncodeQueries(request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (refused.value.details() or "").startswith(f"{field}:")


async def test_token_embeddings_come_where_they_were_asked_for(encoder: Stub, bundle: Bundle) -> None:
    queries = ["red lamp", "ab", "red lamp"]
    plain = await encoder.EncodeQueries(Request(queries=queries))
    assert not plain.token_embeddings
    for _ in range(2):
        response = await encoder.EncodeQueries(Request(queries=queries, include_token_embeddings=True))
        assert response.embeddings == plain.embeddings
        assert [one.model_version for one in response.token_embeddings] == [bundle.version] * 3
        rows = [unpack(one) for one in response.token_embeddings]
        # A token a letter, the special ones, and the pooled vector.
        assert [one.shape for one in rows] == [(10, 8), (5, 8), (10, 8)]
        np.testing.assert_array_equal(rows[0], rows[2])
        np.testing.assert_allclose(np.linalg.norm(np.vstack(rows), axis=1), 1, atol=1e-3)


async def test_bulk_is_served_too(encoder: Stub) -> None:
    response = await encoder.EncodeQueries(Request(queries=["lamp"], priority=priority_pb2.PRIORITY_BULK))
    assert unpack(response.embeddings).shape == (1, 8)


async def test_get_model_says_what_answers(encoder: Stub, bundle: Bundle) -> None:
    model = (await encoder.GetModel(model_pb2.GetModelRequest())).model
    assert (model.version, model.kind, model.dimensions, model.max_tokens) == (bundle.version, "bi-encoder", 8, 16)
