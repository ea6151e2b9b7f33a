"""Milvus's Search call, made without what pymilvus does around it.

Its client checks every argument for what else it might be, and makes two dictionaries of each hit: with 100 hits that
was half of this service's processor time for a search. Channels, errors and timestamps are still pymilvus's.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymilvus import AsyncMilvusClient
from pymilvus.client.field_data_extractors import decode_range
from pymilvus.client.ts_utils import construct_guarantee_ts
from pymilvus.client.types import PlaceholderType
from pymilvus.client.utils import check_status
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from services.vector_retrieval.fusion import Found

_PAYLOAD = "payload"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCall:
    """One search of one collection for several queries."""

    collection: str
    field: str
    """Of vectors, dense or sparse."""
    queries: Sequence[bytes] | Sequence[str]
    """float32 vectors, or texts."""
    parameters: dict[str, Any]
    """Metric, and how far to look."""
    limit: int
    expression: str
    columns: Sequence[str]
    """`payload` among them."""
    level: str
    """Milvus's consistency level."""

    async def run(self, client: AsyncMilvusClient) -> list[list[Found]]:
        """The hits of each query, best first. Raises `MilvusException` and `grpc.RpcError`."""
        handler = await client._get_connection()
        answer = await handler._async_stub.Search(
            self._request(), metadata=client._generate_call_context().to_grpc_metadata()
        )
        check_status(answer.status)
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
        columns = {one.field_name: decode_range(one, 0, len(ids)) for one in results.fields_data}
        payloads = columns.pop(_PAYLOAD, [])
        if columns:
            rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
            found = list(map(Found, ids, scores, payloads, rows))
        else:
            found = list(map(Found, ids, scores, payloads))
        hits, start = [], 0
        for count in results.topks:
            hits.append(found[start : start + count])
            start += count
        return hits
