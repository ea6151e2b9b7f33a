"""`BrowseItems` of aisle.retrieval.v1 ↔ the domain."""

from aisle.catalog.v1 import item_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.vector_retrieval import wire
from services.vector_retrieval.browse import Browse, Browsed
from shared.errors import InvalidArgumentError
from shared.rpc import embeddings


def browse_from_proto(request: pb.BrowseItemsRequest) -> Browse:
    """Raises `InvalidArgumentError` naming every field at fault."""
    found = wire.limit_violations(request.limit, request.exclude_ids)
    condition = wire.filter_of(request, found)
    if found:
        raise InvalidArgumentError(found)
    return Browse(
        filter=condition,
        limit=request.limit,
        exclude_ids=list(request.exclude_ids),
        with_vectors=request.include_embeddings,
    )


def browsed_to_proto(browsed: Browsed) -> pb.BrowseItemsResponse:
    """The wire's form of what was found."""
    response = pb.BrowseItemsResponse(
        items=map(item_pb2.Item.FromString, browsed.payloads),
        generation=browsed.generation,
        model_version=browsed.model_version,
    )
    if browsed.vectors is not None:
        response.embeddings.CopyFrom(embeddings.pack(browsed.vectors, browsed.model_version))
    return response
