import numpy as np
import pytest
from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.vector_retrieval import filters, wire, wire_browse
from services.vector_retrieval.browse import Browse, Browsed
from services.vector_retrieval.fusion import Candidate
from services.vector_retrieval.search import Answer
from shared.errors import InvalidArgumentError
from shared.rpc import embeddings

BROKEN = filter_pb2.Filter(exists="nothing")


def test_a_browse() -> None:
    request = pb.BrowseItemsRequest(
        limit=7, exclude_ids=["a", "b"], filter=filter_pb2.Filter(in_stock=True), include_embeddings=True
    )
    assert wire_browse.browse_from_proto(request) == Browse(
        filter=filters.InStock(True), limit=7, exclude_ids=["a", "b"], with_vectors=True
    )
    assert wire_browse.browse_from_proto(pb.BrowseItemsRequest(limit=1)) == Browse(limit=1, exclude_ids=[])


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (pb.BrowseItemsRequest(), ["limit"]),
        (pb.BrowseItemsRequest(limit=1001), ["limit"]),
        (pb.BrowseItemsRequest(limit=1, exclude_ids=["x"] * 1001), ["exclude_ids"]),
        (pb.BrowseItemsRequest(limit=1, filter=BROKEN), ["filter.exists"]),
        (pb.BrowseItemsRequest(exclude_ids=["x"] * 1001, filter=BROKEN), ["limit", "exclude_ids", "filter.exists"]),
    ],
)
def test_bad_browses_name_each_field(request_: pb.BrowseItemsRequest, expected: list[str]) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        wire_browse.browse_from_proto(request_)
    assert [v.field for v in refused.value.violations] == expected


def test_what_was_found() -> None:
    items = [item_pb2.Item(id="a", title="Lamp"), item_pb2.Item(id="b", title="Chair")]
    payloads = [item.SerializeToString() for item in items]
    assert wire_browse.browsed_to_proto(Browsed()) == pb.BrowseItemsResponse()
    plain = wire_browse.browsed_to_proto(Browsed(payloads, None, "g1", "m1"))
    assert plain == pb.BrowseItemsResponse(items=items, generation="g1", model_version="m1")
    rows = np.eye(2, 3, dtype=np.float32)
    packed = wire_browse.browsed_to_proto(Browsed(payloads, rows, "g1", "m1")).embeddings
    assert packed == embeddings.pack(rows, "m1")


def test_hits_bring_vectors_where_they_were_asked_for() -> None:
    rows = np.eye(2, 3, dtype=np.float32)
    found = [[Candidate("a", ""), Candidate("b", "")], []]
    answer = wire.answer_to_proto(Answer(found, "g1", "m1", vectors=[rows, rows[:0]]))
    assert answer.candidates[0].embeddings == embeddings.pack(rows, "m1")
    assert embeddings.unpack(answer.candidates[1].embeddings).shape == (0, 3)
    assert not wire.answer_to_proto(Answer(found, "g1", "m1")).candidates[0].HasField("embeddings")
    assert wire.query_from_proto(pb.SearchRequest(texts=["a"], limit=1, include_embeddings=True)).with_vectors
    assert not wire.query_from_proto(pb.SearchRequest(texts=["a"], limit=1)).with_vectors
