from datetime import UTC, datetime

import numpy as np
import pytest
from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.common.v1 import embeddings_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from google.protobuf import timestamp_pb2

from services.vector_retrieval import filters, fusion, wire
from services.vector_retrieval.search import Consistency, Mode
from shared.errors import InvalidArgumentError
from shared.rpc import embeddings

NOW = datetime(2024, 1, 1, tzinfo=UTC)
TWO = embeddings.pack(np.ones((2, 3), dtype=np.float32), "m")


def fields(request: pb.SearchRequest) -> list[str]:
    with pytest.raises(InvalidArgumentError) as caught:
        wire.query_from_proto(request)
    return [violation.field for violation in caught.value.violations]


def search(**changes: object) -> pb.SearchRequest:
    return pb.SearchRequest(**{"embeddings": TWO, "texts": ["a", "b"], "limit": 5, **changes})  # type: ignore[arg-type]


def test_a_query() -> None:
    query = wire.query_from_proto(
        search(
            mode=pb.SEARCH_MODE_HYBRID,
            exclude_ids=["x"],
            consistency=pb.CONSISTENCY_STRONG,
            filter=filter_pb2.Filter(in_stock=True),
            fusion=pb.Fusion(weighted=pb.Weighted(dense=0.2, lexical=1)),
        )
    )
    assert (query.size, query.limit, query.mode, query.model_version) == (2, 5, Mode.HYBRID, "m")
    assert (query.filter, query.fusion) == (filters.InStock(True), fusion.Weighted(0.2, 1))
    assert (query.exclude_ids, query.consistency) == (["x"], Consistency.STRONG)


def test_defaults() -> None:
    query = wire.query_from_proto(pb.SearchRequest(texts=["a"], limit=1))
    assert (query.vectors, query.mode, query.filter) == (None, Mode.BEST, None)
    assert (query.fusion, query.consistency) == (fusion.ReciprocalRank(60), Consistency.BOUNDED)
    assert wire.query_from_proto(search(fusion=pb.Fusion(reciprocal_rank=pb.ReciprocalRank(k=7)))).fusion == (
        fusion.ReciprocalRank(7)
    )


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (pb.SearchRequest(limit=1), ["embeddings"]),
        (search(limit=0), ["limit"]),
        (search(limit=1001), ["limit"]),
        (search(texts=["a"]), ["texts"]),
        (pb.SearchRequest(texts=["a"] * 65, limit=1), ["texts"]),
        (search(exclude_ids=["x"] * 1001), ["exclude_ids"]),
        (search(mode=9), ["mode"]),
        (search(consistency=9), ["consistency"]),
        (pb.SearchRequest(texts=["a"], limit=1, mode=pb.SEARCH_MODE_DENSE), ["embeddings"]),
        (pb.SearchRequest(texts=["a"], limit=1, mode=pb.SEARCH_MODE_HYBRID), ["embeddings"]),
        (pb.SearchRequest(embeddings=TWO, limit=1, mode=pb.SEARCH_MODE_LEXICAL), ["texts"]),
        (search(embeddings=embeddings.pack(np.zeros((2, 3), dtype=np.float32), "m")), ["embeddings.data"]),
        (search(embeddings=embeddings_pb2.Embeddings()), ["embeddings.dtype"]),
        (search(fusion=pb.Fusion(reciprocal_rank=pb.ReciprocalRank(k=1001))), ["fusion.reciprocal_rank.k"]),
        (search(fusion=pb.Fusion(weighted=pb.Weighted(dense=2))), ["fusion.weighted.dense"]),
        (search(fusion=pb.Fusion(weighted=pb.Weighted(dense=float("nan")))), ["fusion.weighted.dense"]),
        (search(fusion=pb.Fusion(weighted=pb.Weighted())), ["fusion.weighted"]),
        (search(fusion=pb.Fusion(linear=pb.Linear(lexical=-1))), ["fusion.linear.lexical"]),
        (search(fusion=pb.Fusion(linear=pb.Linear())), ["fusion.linear"]),
        (search(filter=filter_pb2.Filter()), ["filter"]),
        (search(filter=filter_pb2.Filter(exists="x")), ["filter.exists"]),
        (search(limit=0, filter=filter_pb2.Filter(exists="x")), ["limit", "filter.exists"]),
    ],
)
def test_bad_queries_name_each_field(request_: pb.SearchRequest, expected: list[str]) -> None:
    assert fields(request_) == expected


def test_filters() -> None:
    at = timestamp_pb2.Timestamp()
    at.FromDatetime(NOW)
    found = wire.filter_from_proto(
        filter_pb2.Filter(
            all_of=filter_pb2.FilterList(
                filters=[
                    filter_pb2.Filter(text=filter_pb2.TextCondition(field="tags", values=["a"], all=True)),
                    filter_pb2.Filter(range=filter_pb2.RangeCondition(field="price", at_least=0, less_than=2)),
                    filter_pb2.Filter(time=filter_pb2.TimeCondition(field="updated_at", since=at)),
                    filter_pb2.Filter(category=filter_pb2.CategoryCondition(path=["A"])),
                    filter_pb2.Filter(negate=filter_pb2.Filter(in_stock=False)),
                    filter_pb2.Filter(any_of=filter_pb2.FilterList(filters=[filter_pb2.Filter(exists="brand")])),
                ]
            )
        )
    )
    assert found == filters.AllOf(
        (
            filters.Text("tags", ("a",), every=True),
            filters.Range("price", at_least=0, less_than=2),
            filters.Time("updated_at", since=NOW),
            filters.Category(("A",)),
            filters.Not(filters.InStock(False)),
            filters.AnyOf((filters.Exists("brand"),)),
        )
    )


def test_deep_filters_and_impossible_times_are_refused() -> None:
    deep = filter_pb2.Filter(in_stock=True)
    for _ in range(50):
        deep = filter_pb2.Filter(negate=deep)
    with pytest.raises(InvalidArgumentError, match="at most 8 deep"):
        wire.filter_from_proto(deep)
    bad = timestamp_pb2.Timestamp(seconds=2**60)
    with pytest.raises(InvalidArgumentError, match=r"filter\.time\.before"):
        wire.filter_from_proto(filter_pb2.Filter(time=filter_pb2.TimeCondition(field="updated_at", before=bad)))


def test_an_item_without_a_time_is_stamped_and_the_request_left_alone() -> None:
    item = item_pb2.Item(id="1", title="t")
    request = pb.UpsertItemsRequest(items=[item], embeddings=embeddings.pack(np.ones((1, 3), dtype=np.float32), "m"))
    upsert = wire.upsert_from_proto(request, NOW)
    assert upsert.rows[0].item.updated_at == NOW
    assert item_pb2.Item.FromString(upsert.rows[0].payload).updated_at.ToDatetime(tzinfo=UTC) == NOW
    assert not request.items[0].HasField("updated_at")


def test_a_bad_row_names_all_its_faults() -> None:
    request = pb.UpsertItemsRequest(
        items=[item_pb2.Item(brand="x" * 129)], embeddings=embeddings.pack(np.ones((1, 3), dtype=np.float32), "m")
    )
    (error,) = wire.upsert_from_proto(request, NOW).errors
    assert (error.row, error.field, error.reason) == (0, "id", "INVALID_ARGUMENT")
    assert "title: must not be empty" in error.message
    assert "brand: must be at most 128 characters" in error.message


@pytest.mark.parametrize("ids", [[], ["a"] * 1001, ["a", ""]])
def test_bad_ids(ids: list[str]) -> None:
    with pytest.raises(InvalidArgumentError, match="ids"):
        wire.ids_from_proto(ids)
