"""The generations of aisle.retrieval.v1 ↔ the domain."""

from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.vector_retrieval.generations import Generation, Roles
from services.vector_retrieval.lifecycle import DEFAULT_MIN_RECALL, DEFAULT_SAMPLE, Options, Verification
from services.vector_retrieval.schema import HnswParams
from shared.errors import FieldViolation, InvalidArgumentError

MAX_PAGE = 1_000
DEFAULT_PAGE = 100
MAX_SAMPLE = 1_000
MAX_DIMENSIONS = 32_768


def new_generation_from_proto(request: pb.CreateGenerationRequest, default: HnswParams) -> tuple[str, int, HnswParams]:
    """Model version, dimensions, and how to build. Raises `InvalidArgumentError` naming every field at fault."""
    m = request.hnsw_m if request.HasField("hnsw_m") else default.m
    ef = request.hnsw_ef_construction if request.HasField("hnsw_ef_construction") else default.ef_construction
    found = []
    if not request.model_version:
        found.append(FieldViolation("model_version", "must not be empty"))
    for name, value, low, high in (
        ("dimensions", request.dimensions, 2, MAX_DIMENSIONS),
        ("hnsw_m", m, 4, 64),
        ("hnsw_ef_construction", ef, 8, 2048),
    ):
        if not low <= value <= high:
            found.append(FieldViolation(name, f"must be between {low} and {high:,}"))
    if found:
        raise InvalidArgumentError(found)
    return request.model_version, request.dimensions, HnswParams(m, ef)


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
