"""The generations of aisle.retrieval.v1 ↔ the domain."""

from dataclasses import replace
from typing import Literal

from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.vector_retrieval.generations import Generation, Roles
from services.vector_retrieval.lifecycle import DEFAULT_MIN_RECALL, DEFAULT_SAMPLE, Options, Verification
from services.vector_retrieval.schema import IndexType, VectorIndex
from shared.errors import FieldViolation, InvalidArgumentError

_Parameter = Literal["hnsw_m", "hnsw_ef_construction", "ivf_nlist"]

MAX_PAGE = 1_000
DEFAULT_PAGE = 100
MAX_SAMPLE = 1_000
MAX_DIMENSIONS = 32_768

_TYPES = {
    pb.INDEX_TYPE_HNSW: IndexType.HNSW,
    pb.INDEX_TYPE_FLAT: IndexType.FLAT,
    pb.INDEX_TYPE_IVF_FLAT: IndexType.IVF_FLAT,
}
_WIRE_TYPES = {domain: wire for wire, domain in _TYPES.items()}
_PARAMETERS: tuple[tuple[_Parameter, IndexType, int, int], ...] = (
    ("hnsw_m", IndexType.HNSW, 4, 64),
    ("hnsw_ef_construction", IndexType.HNSW, 8, 2_048),
    ("ivf_nlist", IndexType.IVF_FLAT, 1, 65_536),
)
"""Each with the type it belongs to, and its range: Milvus's own or narrower."""


def new_generation_from_proto(
    request: pb.CreateGenerationRequest, default: VectorIndex
) -> tuple[str, int, VectorIndex]:
    """Model version, dimensions, and how to build. Raises `InvalidArgumentError` naming every field at fault."""
    found = []
    if not request.model_version:
        found.append(FieldViolation("model_version", "must not be empty"))
    if not 2 <= request.dimensions <= MAX_DIMENSIONS:
        found.append(FieldViolation("dimensions", f"must be between 2 and {MAX_DIMENSIONS:,}"))
    index_type = default.type
    if request.index_type in _TYPES:
        index_type = _TYPES[request.index_type]
    elif request.index_type:
        found.append(FieldViolation("index_type", "must be HNSW, FLAT or IVF_FLAT"))
    for name, owner, low, high in _PARAMETERS:
        if not request.HasField(name):
            continue
        if owner is not index_type:
            found.append(FieldViolation(name, f"is for {owner} alone, and index_type is {index_type}"))
        elif not low <= getattr(request, name) <= high:
            found.append(FieldViolation(name, f"must be between {low} and {high:,}"))
    if found:
        raise InvalidArgumentError(found)
    given = {name: getattr(request, name) for name, *_ in _PARAMETERS if request.HasField(name)}
    return request.model_version, request.dimensions, replace(default, type=index_type, **given)


def page_size_from_proto(size: int) -> int:
    """Items a page."""
    if size > MAX_PAGE:
        raise InvalidArgumentError.of("page_size", f"must be at most {MAX_PAGE:,}")
    return size or DEFAULT_PAGE


def options_from_proto(request: pb.VerifyOptions) -> Options:
    """What a generation must live up to."""
    if request.sample > MAX_SAMPLE:
        raise InvalidArgumentError.of("options.sample", f"must be at most {MAX_SAMPLE:,}")
    recall = request.min_recall if request.HasField("min_recall") else DEFAULT_MIN_RECALL
    if not 0 <= recall <= 1:
        raise InvalidArgumentError.of("options.min_recall", "must be between 0 and 1")
    return Options(request.sample or DEFAULT_SAMPLE, recall)


def generation_to_proto(generation: Generation, roles: Roles, items: int) -> pb.Generation:
    """The wire's form of a generation."""
    states = {
        roles.building: pb.GENERATION_STATE_BUILDING,
        roles.live: pb.GENERATION_STATE_LIVE,
        roles.previous: pb.GENERATION_STATE_PREVIOUS,
    }
    return pb.Generation(
        name=generation.name,
        model_version=generation.model_version,
        dimensions=generation.dimensions,
        state=states.get(generation, pb.GENERATION_STATE_UNUSED),
        items=items,
        index_type=_WIRE_TYPES[generation.index_type],
    )


def verification_to_proto(seen: Verification) -> pb.Verification:
    """The wire's form of a verification."""
    return pb.Verification(
        items=seen.items,
        live_items=seen.live_items,
        missing=seen.missing,
        extra=seen.extra,
        recall=seen.recall,
        sampled=seen.sampled,
        problems=seen.problems,
    )
