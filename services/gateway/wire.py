"""What the gateway sends to and gets from other services ↔ what its domain knows of it."""

from collections.abc import Collection, Sequence
from typing import cast

from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.common.v1 import embeddings_pb2, row_error_pb2

from services.gateway.ports import FilterPayload, ItemPayload, RowError, TokensPayload, Vectors
from shared.errors import InternalError

_WIDTHS: dict[int, int] = {embeddings_pb2.DTYPE_FLOAT32: 4, embeddings_pb2.DTYPE_FLOAT16: 2}
"""Bytes of a component."""


def items(payloads: Sequence[ItemPayload]) -> Sequence[item_pb2.Item]:
    """Items as the stubs know them."""
    return cast("Sequence[item_pb2.Item]", payloads)


def filter_(payload: FilterPayload | None) -> filter_pb2.Filter | None:
    """A filter as the stubs know it."""
    return cast("filter_pb2.Filter | None", payload)


def filter_among(payload: FilterPayload | None, ids: Sequence[str]) -> filter_pb2.Filter | None:
    """`payload`, for the items of `ids` alone where there are any."""
    given = filter_(payload)
    if not ids:
        return given
    return _both(given, filter_pb2.Filter(text=filter_pb2.TextCondition(field="id", values=ids)))


def filter_outside(payload: FilterPayload | None, group_ids: Collection[str]) -> filter_pb2.Filter | None:
    """`payload`, for the items of other groups than `group_ids` and of none."""
    given = filter_(payload)
    if not group_ids:
        return given
    within = filter_pb2.Filter(text=filter_pb2.TextCondition(field="group_id", values=sorted(group_ids)))
    return _both(given, filter_pb2.Filter(negate=within))


def tokens(payload: TokensPayload | None) -> embeddings_pb2.Embeddings | None:
    """The vectors of a query's tokens as the stubs know them."""
    return cast("embeddings_pb2.Embeddings | None", payload)


def embeddings(rows: Vectors) -> embeddings_pb2.Embeddings:
    """The wire's form of `rows`."""
    return embeddings_pb2.Embeddings(
        data=rows.data,
        dimensions=rows.dimensions,
        dtype=cast("embeddings_pb2.Dtype.ValueType", rows.dtype),
        model_version=rows.model_version,
    )


def vectors(pb: embeddings_pb2.Embeddings, rows: int, name: str) -> Vectors:
    """`rows` vectors that `name` sent. Raises `InternalError` where they are no such number."""
    data = pb.data
    if not data or len(data) != rows * pb.dimensions * _WIDTHS.get(pb.dtype, 0):
        raise InternalError(f"{name} returned {len(data)} bytes of vectors for {rows} rows")
    return Vectors(data, rows, pb.dimensions, pb.dtype, pb.model_version)


def row_errors(errors: Sequence[row_error_pb2.RowError], rows: int, name: str) -> list[RowError]:
    """What `name` reported of `rows` rows. Raises `InternalError` for a row that was not sent."""
    if any(error.row >= rows for error in errors):
        raise InternalError(f"{name} reported a row that was not sent")
    return [RowError(e.row, e.item_id, e.field, e.reason, e.message) for e in errors]


def _both(given: filter_pb2.Filter | None, other: filter_pb2.Filter) -> filter_pb2.Filter:
    if given is None:
        return other
    return filter_pb2.Filter(all_of=filter_pb2.FilterList(filters=[given, other]))
