"""Milvus's Search and Query calls, made without what pymilvus does around them.

Its client checks every argument for what else it might be, makes two dictionaries of each hit, and an object of each
component of a vector: with 100 hits that was half of this service's processor time for a search, and with 400 hits and
their vectors five sixths. Channels, errors and timestamps are still pymilvus's.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pymilvus import AsyncMilvusClient, DataType
from pymilvus.client.field_data_extractors import decode_range
from pymilvus.client.ts_utils import construct_guarantee_ts
from pymilvus.client.types import PlaceholderType
from pymilvus.client.utils import check_status
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from services.vector_retrieval.fusion import Found
from shared.telemetry import metrics

_ID, _PAYLOAD = "id", "payload"

MANY_HITS = 2_000
"""Hits that are read, and told, sooner than a thread is woken and others have waited: some 5 ms each way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCall:
    """One search of one collection for several queries."""

    collection: str
    field: str
    """Of vectors, dense or sparse."""
    queries: Sequence[bytes | str]
    """float32 vectors, or texts; not both."""
    parameters: dict[str, Any]
    """Metric, and how far to look."""
    limit: int
    expression: str
    columns: Sequence[str]
    """`payload` among them."""
    level: str
    """Milvus's consistency level."""

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for calls that differ in nothing but their queries."""
        parameters = json.dumps(self.parameters)
        return (self.collection, self.field, parameters, self.limit, self.expression, *self.columns, self.level)

    async def run(self, client: AsyncMilvusClient) -> list[list[Found]]:
        """The hits of each query, best first. Raises `MilvusException` and `grpc.RpcError`."""
        handler = await client._get_connection()
        answer = await handler._async_stub.Search(
            self._request(), metadata=client._generate_call_context().to_grpc_metadata()
        )
        check_status(answer.status)
        if sum(answer.results.topks) > MANY_HITS:
            return await asyncio.to_thread(self._hits, answer.results)
        return self._hits(answer.results)

    def _request(self) -> milvus_pb2.SearchRequest:
        options: dict[str, Any] = {"consistency_level": self.level}
        construct_guarantee_ts(self.collection, options)
        parameters = {"anns_field": self.field, "topk": self.limit, **self.parameters}
        return milvus_pb2.SearchRequest(
            collection_name=self.collection,
            dsl=self.expression,
            dsl_type=common_pb2.DslType.BoolExprV1,
            placeholder_group=self._placeholders(),
            nq=len(self.queries),
            output_fields=self.columns,
            search_params=[
                common_pb2.KeyValuePair(key=key, value=value if isinstance(value, str) else json.dumps(value))
                for key, value in parameters.items()
            ],
            **options,
        )

    def _placeholders(self) -> bytes:
        texts = isinstance(self.queries[0], str)
        values = common_pb2.PlaceholderValue(
            tag="$0",
            type=PlaceholderType.VARCHAR if texts else PlaceholderType.FloatVector,
            values=[query.encode() if isinstance(query, str) else query for query in self.queries],
        )
        return bytes(common_pb2.PlaceholderGroup(placeholders=[values]).SerializeToString())

    def _hits(self, results: Any) -> list[list[Found]]:
        ids, scores = list(results.ids.str_id.data), list(results.scores)
        columns = {one.field_name: _values(one, len(ids)) for one in results.fields_data}
        payloads = columns.pop(_PAYLOAD, [])
        if columns:
            found = list(map(Found, ids, scores, payloads, _rows(columns)))
        else:
            found = list(map(Found, ids, scores, payloads))
        hits, start = [], 0
        for count in results.topks:
            hits.append(found[start : start + count])
            start += count
        return hits


async def search_together(client: AsyncMilvusClient, calls: Sequence[SearchCall]) -> list[list[list[Found]]]:
    """What each of `calls`, all of one kind, would find, by one call of the store. Raises as `SearchCall.run` does."""
    queries = [query for call in calls for query in call.queries]
    metrics.STORE_SEARCH_QUERIES.observe(len(queries))
    found = iter(await replace(calls[0], queries=queries).run(client))
    return [[next(found) for _ in call.queries] for call in calls]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryCall:
    """The rows of one collection that meet an expression."""

    collection: str
    expression: str
    columns: Sequence[str]
    level: str
    """Milvus's consistency level."""
    limit: int | None = None

    async def run(self, client: AsyncMilvusClient) -> list[dict[str, Any]]:
        """The rows, in the store's order; vectors are float32. Raises `MilvusException` and `grpc.RpcError`."""
        handler = await client._get_connection()
        answer = await handler._async_stub.Query(
            self._request(), metadata=client._generate_call_context().to_grpc_metadata()
        )
        check_status(answer.status)
        columns = answer.fields_data
        ids = next((len(one.scalars.string_data.data) for one in columns if one.field_name == _ID), 0)
        return list(_rows({one.field_name: _values(one, ids) for one in columns}))

    def _request(self) -> milvus_pb2.QueryRequest:
        options: dict[str, Any] = {"consistency_level": self.level}
        construct_guarantee_ts(self.collection, options)
        return milvus_pb2.QueryRequest(
            collection_name=self.collection,
            expr=self.expression,
            output_fields=[_ID, *self.columns],
            query_params=[] if self.limit is None else [common_pb2.KeyValuePair(key="limit", value=str(self.limit))],
            **options,
        )


def _rows(columns: Mapping[str, Iterable[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


def _values(column: schema_pb2.FieldData, count: int) -> Iterable[Any]:
    """Of `count` rows."""
    if column.type != DataType.FLOAT_VECTOR:
        values: list[Any] = decode_range(column, 0, count)
        return values
    # In the message's wire form the components lie one after the other as float32, behind its tag and length.
    wire = column.vectors.float_vector.SerializeToString()
    size = 4 * count * column.vectors.dim
    return np.frombuffer(wire, "<f4", offset=len(wire) - size).reshape(count, column.vectors.dim)
