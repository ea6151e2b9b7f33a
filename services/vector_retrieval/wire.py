"""aisle.retrieval.v1 and aisle.catalog.v1.Filter ↔ the domain. Refuses what the domain's types cannot express."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite

from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.common.v1 import row_error_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.vector_retrieval import filters, fusion, wire_facets
from services.vector_retrieval.capabilities import Capabilities
from services.vector_retrieval.facets import Facet
from services.vector_retrieval.filters import Filter
from services.vector_retrieval.schema import Row, Vectors, payload_of
from services.vector_retrieval.search import DEFAULT_FACET_DEPTH, Answer, Consistency, Mode, Query
from services.vector_retrieval.store import Status
from shared.errors import FieldViolation, InvalidArgumentError
from shared.items import MAX_ID_BYTES
from shared.items import violations as item_violations
from shared.rpc import embeddings
from shared.rpc.items import item_from_proto

MAX_ROWS = 1_000
MAX_QUERIES = 64
MAX_LIMIT = 1_000
MAX_OFFSET = 1_000
MAX_EXCLUDED = 1_000

_MODES = {
    pb.SEARCH_MODE_UNSPECIFIED: Mode.BEST,
    pb.SEARCH_MODE_DENSE: Mode.DENSE,
    pb.SEARCH_MODE_LEXICAL: Mode.LEXICAL,
    pb.SEARCH_MODE_HYBRID: Mode.HYBRID,
}
_CONSISTENCY_NAMES = (pb.CONSISTENCY_BOUNDED, pb.CONSISTENCY_SESSION, pb.CONSISTENCY_STRONG)
_CONSISTENCIES: dict[int, Consistency] = {
    pb.CONSISTENCY_BOUNDED: Consistency.BOUNDED,
    pb.CONSISTENCY_SESSION: Consistency.SESSION,
    pb.CONSISTENCY_STRONG: Consistency.STRONG,
}


@dataclass(frozen=True, slots=True)
class Upsert:
    """The rows of an UpsertItemsRequest that make sense, where they stood in it, and what is wrong with the others."""

    rows: list[Row]
    positions: list[int]
    errors: list[row_error_pb2.RowError]
    model_version: str


def upsert_from_proto(request: pb.UpsertItemsRequest, now: datetime) -> Upsert:
    """Raises `InvalidArgumentError` for what is wrong with the request as a whole."""
    if not 1 <= len(request.items) <= MAX_ROWS:
        raise InvalidArgumentError.of("items", f"must have 1 to {MAX_ROWS:,} entries")
    vectors = embeddings.unpack(request.embeddings)
    if len(vectors) != len(request.items):
        raise InvalidArgumentError.of(
            "embeddings.data", f"has {len(vectors)} rows for {len(request.items)} items; must have one row an item"
        )
    if not request.embeddings.model_version:
        raise InvalidArgumentError.of("embeddings.model_version", "must not be empty")
    found = Upsert([], [], [], request.embeddings.model_version)
    for position, (item_pb, vector) in enumerate(zip(request.items, vectors, strict=True)):
        row = _row(item_pb, vector, now)
        if isinstance(row, Row):
            found.rows.append(row)
            found.positions.append(position)
        else:
            found.errors.append(row_error(position, item_pb.id, row))
    return found


def _row(item_pb: item_pb2.Item, vector: Vectors, now: datetime) -> Row | Sequence[FieldViolation]:
    try:
        item = item_from_proto(item_pb)
    except InvalidArgumentError as error:
        return error.violations
    if broken := item_violations(item):
        return broken
    if item.updated_at is None:
        item = replace(item, updated_at=now)
        stamped = item_pb2.Item()
        stamped.CopyFrom(item_pb)
        stamped.updated_at.FromDatetime(now)
        item_pb = stamped
    return Row(item, vector, item_pb.SerializeToString())


def same_item(one: bytes, other: bytes) -> bool:
    """Whether two payloads are the same item: equal ones may have been written in another order."""
    return one == other or item_pb2.Item.FromString(one) == item_pb2.Item.FromString(other)


def row_error(position: int, item_id: str, broken: Sequence[FieldViolation]) -> row_error_pb2.RowError:
    """Why the row at `position` was refused: the first rule it breaks gives the field, the message names all."""
    return row_error_pb2.RowError(
        row=position,
        item_id=item_id,
        field=broken[0].field.removeprefix("item").removeprefix("."),
        reason=InvalidArgumentError.reason,
        message="; ".join(f"{v.field.removeprefix('item.')}: {v.description}" for v in broken),
    )


def ids_from_proto(ids: Sequence[str]) -> list[str]:
    """The ids of a request that names items."""
    if not 1 <= len(ids) <= MAX_ROWS:
        raise InvalidArgumentError.of("ids", f"must have 1 to {MAX_ROWS:,} entries")
    for index, item_id in enumerate(ids):
        if not item_id:
            raise InvalidArgumentError.of(f"ids[{index}]", "must not be empty")
        if len(item_id.encode()) > MAX_ID_BYTES:
            raise InvalidArgumentError.of(f"ids[{index}]", f"must be at most {MAX_ID_BYTES} bytes")
    return list(ids)


def consistency_from_proto(value: int, default: Consistency) -> Consistency:
    """Which writes a read must see."""
    if value == pb.CONSISTENCY_UNSPECIFIED:
        return default
    if value not in _CONSISTENCIES:
        raise InvalidArgumentError.of("consistency", "is not known")
    return _CONSISTENCIES[value]


def query_from_proto(request: pb.SearchRequest) -> Query:
    """Raises `InvalidArgumentError` naming every field at fault."""
    vectors = embeddings.unpack(request.embeddings) if request.HasField("embeddings") else None
    texts = list(request.texts) or None
    mode = _MODES.get(request.mode)
    consistency = consistency_from_proto(request.consistency, Consistency.BOUNDED)
    found = _size_violations(request, vectors, texts)
    if mode is None:
        found.append(FieldViolation("mode", "is not known"))
    if mode in {Mode.DENSE, Mode.HYBRID} and vectors is None:
        found.append(FieldViolation("embeddings", "must be given for this mode"))
    if mode in {Mode.LEXICAL, Mode.HYBRID} and texts is None:
        found.append(FieldViolation("texts", "must be given for this mode"))
    if vectors is not None and not (vectors != 0).any(axis=1).all():
        found.append(FieldViolation("embeddings.data", "a row is all zeros: it has no direction to compare"))
    condition = filter_of(request, found)
    fused = _fusion_from_proto(request.fusion, found)
    wanted = wire_facets.facets_from_proto(request, found)
    if found or mode is None:
        raise InvalidArgumentError(found)
    return Query(
        vectors=vectors,
        model_version=request.embeddings.model_version,
        texts=texts,
        mode=mode,
        filter=condition,
        limit=request.limit,
        fusion=fused,
        exclude_ids=list(request.exclude_ids),
        consistency=consistency,
        offset=request.offset,
        min_score=request.min_score if request.HasField("min_score") else None,
        exact=request.exact,
        one_per_group=request.one_per_group,
        facets=wanted,
        facet_depth=request.facet_depth or DEFAULT_FACET_DEPTH,
        with_vectors=request.include_embeddings,
    )


def filter_of(request: pb.SearchRequest | pb.BrowseItemsRequest, found: list[FieldViolation]) -> Filter | None:
    """The request's filter, if it has one; what is wrong with it is added to `found`."""
    if not request.HasField("filter"):
        return None
    condition = filter_from_proto(request.filter)
    found.extend(filters.violations(condition))
    return condition


def limit_violations(limit: int, exclude_ids: Sequence[str]) -> list[FieldViolation]:
    """What is wrong with how many items are asked for, and without which."""
    found = []
    if not 1 <= limit <= MAX_LIMIT:
        found.append(FieldViolation("limit", f"must be between 1 and {MAX_LIMIT:,}"))
    if len(exclude_ids) > MAX_EXCLUDED:
        found.append(FieldViolation("exclude_ids", f"must have at most {MAX_EXCLUDED:,} entries"))
    return found


def _size_violations(
    request: pb.SearchRequest, vectors: Vectors | None, texts: Sequence[str] | None
) -> list[FieldViolation]:
    found = []
    if vectors is None and texts is None:
        found.append(FieldViolation("embeddings", "embeddings or texts must be given"))
    if vectors is not None and not 1 <= len(vectors) <= MAX_QUERIES:
        found.append(FieldViolation("embeddings.data", f"must have 1 to {MAX_QUERIES} rows"))
    if texts is not None and len(texts) > MAX_QUERIES:
        found.append(FieldViolation("texts", f"must have 1 to {MAX_QUERIES} entries"))
    if vectors is not None and texts is not None and len(vectors) != len(texts):
        found.append(FieldViolation("texts", f"has {len(texts)} entries for {len(vectors)} embeddings"))
    found.extend(limit_violations(request.limit, request.exclude_ids))
    if request.offset > MAX_OFFSET:
        found.append(FieldViolation("offset", f"must be at most {MAX_OFFSET:,}"))
    if request.HasField("min_score") and not isfinite(request.min_score):
        found.append(FieldViolation("min_score", "must be a finite number"))
    return found


def _fusion_from_proto(request: pb.Fusion, found: list[FieldViolation]) -> fusion.Fusion:
    match request.WhichOneof("method"):
        case "weighted":
            return fusion.Weighted(*_weights_from_proto(request.weighted, "fusion.weighted", found))
        case "linear":
            return fusion.Linear(*_weights_from_proto(request.linear, "fusion.linear", found))
    k = request.reciprocal_rank.k
    if k > fusion.MAX_RRF_K:
        found.append(FieldViolation("fusion.reciprocal_rank.k", f"must be between 1 and {fusion.MAX_RRF_K:,}"))
    return fusion.ReciprocalRank(k or fusion.DEFAULT_RRF_K)


def _weights_from_proto(request: pb.Weighted | pb.Linear, at: str, found: list[FieldViolation]) -> tuple[float, float]:
    for name, weight in (("dense", request.dense), ("lexical", request.lexical)):
        if not 0 <= weight <= 1:
            found.append(FieldViolation(f"{at}.{name}", "must be between 0 and 1"))
    if not (request.dense or request.lexical):
        found.append(FieldViolation(at, "must give one half a weight"))
    return request.dense, request.lexical


def filter_from_proto(request: filter_pb2.Filter, at: str = "filter", depth: int = 1) -> Filter:
    """The domain's form of a filter; its rules are in `filters.violations`."""
    if depth > filters.MAX_DEPTH:
        raise InvalidArgumentError.of(at, f"must nest at most {filters.MAX_DEPTH} deep")
    match request.WhichOneof("condition"):
        case "all_of":
            return filters.AllOf(_list_from_proto(request.all_of, f"{at}.all_of", depth))
        case "any_of":
            return filters.AnyOf(_list_from_proto(request.any_of, f"{at}.any_of", depth))
        case "negate":
            return filters.Not(filter_from_proto(request.negate, f"{at}.negate", depth + 1))
    return _condition_from_proto(request, at)


def _condition_from_proto(request: filter_pb2.Filter, at: str) -> Filter:
    match request.WhichOneof("condition"):
        case "text":
            return filters.Text(request.text.field, tuple(request.text.values), request.text.all)
        case "range":
            return _range_from_proto(request.range)
        case "time":
            return _time_from_proto(request.time, f"{at}.time")
        case "category":
            return filters.Category(tuple(request.category.path))
        case "in_stock":
            return filters.InStock(request.in_stock)
        case "exists":
            return filters.Exists(request.exists)
    raise InvalidArgumentError.of(at, "must have a condition")


def _list_from_proto(request: filter_pb2.FilterList, at: str, depth: int) -> tuple[Filter, ...]:
    return tuple(
        filter_from_proto(child, f"{at}.filters[{index}]", depth + 1) for index, child in enumerate(request.filters)
    )


def _range_from_proto(request: filter_pb2.RangeCondition) -> filters.Range:
    def bound(name: str) -> float | None:
        return getattr(request, name) if request.HasField(name) else None  # type: ignore[arg-type]

    return filters.Range(request.field, bound("at_least"), bound("more_than"), bound("at_most"), bound("less_than"))


def _time_from_proto(request: filter_pb2.TimeCondition, at: str) -> filters.Time:
    bounds: dict[str, datetime] = {}
    for name in ("since", "before"):
        if request.HasField(name):
            try:
                bounds[name] = getattr(request, name).ToDatetime(tzinfo=UTC)
            except (ValueError, OverflowError):
                raise InvalidArgumentError.of(f"{at}.{name}", "must lie between the years 1 and 9999") from None
    return filters.Time(request.field, bounds.get("since"), bounds.get("before"))


def answer_to_proto(answer: Answer, asked: Sequence[Facet] = ()) -> pb.SearchResponse:
    """The wire's form of an answer to a query with the facets `asked`."""
    response = pb.SearchResponse(
        generation=answer.generation, model_version=answer.model_version, degraded=answer.degraded
    )
    for index, candidates in enumerate(answer.candidates):
        listed = response.candidates.add()
        add = listed.hits.add
        for one in candidates:
            # Fields that are None stay absent. All at once: one after the other takes a third longer.
            hit = add(
                score=one.score,
                dense_rank=one.dense_rank,
                dense_score=one.dense_score,
                lexical_rank=one.lexical_rank,
                lexical_score=one.lexical_score,
            )
            hit.item.MergeFromString(payload_of(one.payload))
        if answer.vectors:
            listed.embeddings.CopyFrom(embeddings.pack(answer.vectors[index], answer.model_version))
        if asked:
            listed.facets.extend(wire_facets.facets_to_proto(asked, answer.facets[index] if answer.facets else None))
    return response


def status_to_proto(status: Status) -> pb.GetStatusResponse:
    """The wire's form of a status."""
    can = status.capabilities
    live = status.generation
    return pb.GetStatusResponse(
        generation=live.name if live else "",
        model_version=live.model_version if live else "",
        dimensions=live.dimensions if live else 0,
        items=status.items,
        capabilities=_capabilities_to_proto(can, lexical=live.lexical if live else can.lexical),
    )


def _capabilities_to_proto(can: Capabilities, *, lexical: bool) -> pb.Capabilities:
    return pb.Capabilities(
        home=can.home,
        version=can.version,
        lexical=lexical,
        hybrid=lexical,
        group_by=True,
        nullable=can.nullable,
        consistencies=list(_CONSISTENCY_NAMES) if can.shared else [pb.CONSISTENCY_STRONG],
        shared=can.shared,
    )
