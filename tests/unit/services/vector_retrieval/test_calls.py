"""Rows as Milvus answers them, decoded without an object for each number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pymilvus import DataType
from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from services.vector_retrieval.calls import QueryCall, SearchCall


def _texts(name: str, values: list[str]) -> schema_pb2.FieldData:
    scalars = schema_pb2.ScalarField(string_data=schema_pb2.StringArray(data=values))
    return schema_pb2.FieldData(field_name=name, type=DataType.VARCHAR, scalars=scalars)


def _vectors(values: np.ndarray) -> schema_pb2.FieldData:
    vectors = schema_pb2.VectorField(
        dim=values.shape[1], float_vector=schema_pb2.FloatArray(data=values.ravel().tolist())
    )
    return schema_pb2.FieldData(field_name="vector", type=DataType.FLOAT_VECTOR, vectors=vectors)


class _Client:
    """As much of pymilvus's as a call uses, answering with what it is given."""

    def __init__(self, answer: object) -> None:
        self.asked: list[object] = []
        self._async_stub = self
        self._answer = answer

    async def _get_connection(self) -> "_Client":
        return self

    def _generate_call_context(self) -> "_Client":
        return self

    def to_grpc_metadata(self) -> list[tuple[str, str]]:
        return []

    async def Search(self, request: object, metadata: object) -> object:
        self.asked.append(request)
        return self._answer

    Query = Search


def _query(limit: int | None = None) -> QueryCall:
    return QueryCall(
        collection="items", expression="stock > 0", columns=["payload", "vector"], level="Bounded", limit=limit
    )


@given(
    vectors=arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
        elements=st.floats(width=32, allow_nan=False),
    )
)
@pytest.mark.asyncio
async def test_vectors_come_out_as_they_went_in(vectors: np.ndarray) -> None:
    ids = [str(row) for row in range(len(vectors))]
    columns = [_texts("id", ids), _texts("payload", ids), _vectors(vectors)]

    rows = await _query().run(_Client(milvus_pb2.QueryResults(fields_data=columns)))

    assert [row["id"] for row in rows] == ids
    assert np.array_equal(np.stack([row["vector"] for row in rows]), vectors)
    assert rows[0]["vector"].dtype == np.float32


@pytest.mark.asyncio
@pytest.mark.parametrize("columns", [[], [_texts("id", []), _vectors(np.zeros((0, 384), np.float32))]])
async def test_no_rows_are_no_error(columns: list[schema_pb2.FieldData]) -> None:
    assert await _query().run(_Client(milvus_pb2.QueryResults(fields_data=columns))) == []


@pytest.mark.asyncio
async def test_a_query_asks_for_the_id_and_keeps_its_limit() -> None:
    client = _Client(milvus_pb2.QueryResults())

    await _query(limit=7).run(client)

    (asked,) = client.asked
    assert isinstance(asked, milvus_pb2.QueryRequest)
    assert list(asked.output_fields) == ["id", "payload", "vector"]
    assert [(one.key, one.value) for one in asked.query_params] == [("limit", "7")]


@pytest.mark.asyncio
async def test_each_query_of_a_search_gets_its_own_hits() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    results = schema_pb2.SearchResultData(
        ids=schema_pb2.IDs(str_id=schema_pb2.StringArray(data=["a", "b", "c"])),
        scores=[0.9, 0.8, 0.7],
        topks=[2, 0, 1],
        fields_data=[_texts("payload", ["A", "B", "C"]), _vectors(vectors)],
    )
    call = SearchCall(
        collection="items",
        field="vector",
        queries=[b"\0" * 8] * 3,
        parameters={"metric_type": "IP"},
        limit=2,
        expression="",
        columns=["payload", "vector"],
        level="Bounded",
    )

    hits = await call.run(_Client(milvus_pb2.SearchResults(results=results)))

    assert [[hit.id for hit in query] for query in hits] == [["a", "b"], [], ["c"]]
    assert np.array_equal(hits[2][0].columns["vector"], vectors[2])
