"""What a re-index asks of other processes, over gRPC. Items and vectors pass through unread."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aisle.common.v1 import embeddings_pb2, model_pb2, priority_pb2
from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from aisle.retrieval.v1 import vector_retrieval_pb2_grpc

from shared.rpc.client import Dependency

_QUICK_S = 10.0
_BATCH_S = 60.0
_LOOK_S = 1_800.0
"""A look at each item of a large index."""

IndexType = Literal["hnsw", "flat", "ivf_flat"]
_INDEX_TYPES = {
    "hnsw": pb.INDEX_TYPE_HNSW,
    "flat": pb.INDEX_TYPE_FLAT,
    "ivf_flat": pb.INDEX_TYPE_IVF_FLAT,
}

_BUILDING, _LIVE, _PREVIOUS = pb.GENERATION_STATE_BUILDING, pb.GENERATION_STATE_LIVE, pb.GENERATION_STATE_PREVIOUS


@dataclass(frozen=True, slots=True)
class Known:
    """A generation as the service tells of it."""

    name: str
    model_version: str
    items: int


@dataclass(frozen=True, slots=True)
class KnownRoles:
    """What generations are for."""

    live: Known | None
    building: Known | None
    previous: Known | None


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of items, and the token of the next: empty after the last."""

    items: Sequence[Any]
    token: str
    looked_at: int


@dataclass(frozen=True, slots=True)
class Seen:
    """How a generation compares with the live one: how many items it lacks, and which share of the nearest it finds."""

    missing: int
    recall: float


@dataclass(frozen=True, slots=True)
class Encoded:
    """Items with their vectors, and the ids of those that could not be encoded, with why."""

    items: Sequence[Any]
    vectors: Any
    model_version: str
    failed: dict[str, str]


class IndexClient:
    """`aisle.retrieval.v1.VectorRetrieval`."""

    def __init__(self, dependency: Dependency) -> None:
        self._dependency = dependency
        self._stub = vector_retrieval_pb2_grpc.VectorRetrievalStub(dependency.channel)

    async def roles(self) -> KnownRoles:
        """What generations there are, and what for."""
        listed: pb.ListGenerationsResponse = await self._call(
            self._stub.ListGenerations, pb.ListGenerationsRequest(), _QUICK_S
        )
        known = {g.state: Known(g.name, g.model_version, g.items) for g in listed.generations}
        return KnownRoles(known.get(_LIVE), known.get(_BUILDING), known.get(_PREVIOUS))

    async def create(self, model_version: str, dimensions: int, index_type: IndexType) -> Known:
        """A generation for that model."""
        request = pb.CreateGenerationRequest(
            model_version=model_version, dimensions=dimensions, index_type=_INDEX_TYPES[index_type]
        )
        made: pb.CreateGenerationResponse = await self._call(self._stub.CreateGeneration, request, _BATCH_S)
        return Known(made.generation.name, made.generation.model_version, 0)

    async def lacking(self, target: str, source: str, size: int, token: str) -> Listed:
        """Items of `source` that `target` lacks."""
        request = pb.ListItemsRequest(generation=source, missing_from=target, page_size=size, page_token=token)
        page: pb.ListItemsResponse = await self._call(self._stub.ListItems, request, _BATCH_S)
        return Listed(page.items, page.next_page_token, page.looked_at)

    async def load(self, target: str, encoded: Encoded) -> tuple[int, dict[str, str]]:
        """How many were written, and the ids of those refused, with why."""
        request = pb.UpsertItemsRequest(items=encoded.items, embeddings=encoded.vectors, generation=target)
        done: pb.UpsertItemsResponse = await self._call(self._stub.UpsertItems, request, _BATCH_S)
        return done.accepted - done.outdated, {error.item_id: error.message for error in done.errors}

    async def verify(self, name: str, min_recall: float) -> Seen:
        """How fit it is to be live."""
        request = pb.VerifyGenerationRequest(generation=name, options=pb.VerifyOptions(min_recall=min_recall))
        answer: pb.VerifyGenerationResponse = await self._call(self._stub.VerifyGeneration, request, _LOOK_S)
        return Seen(answer.verification.missing, answer.verification.recall)

    async def promote(self, name: str, min_recall: float, *, force: bool) -> None:
        """Makes it live."""
        options = pb.VerifyOptions(min_recall=min_recall)
        request = pb.PromoteGenerationRequest(generation=name, options=options, force=force)
        await self._call(self._stub.PromoteGeneration, request, _LOOK_S)

    async def _call(self, method: Any, request: Any, timeout_s: float) -> Any:
        return await self._dependency.call(method, request, timeout_s=timeout_s)


class EncoderClient:
    """`aisle.encoder.v1.ItemEncoder`, at BULK priority."""

    def __init__(self, dependency: Dependency) -> None:
        self._dependency = dependency
        self._stub = item_encoder_pb2_grpc.ItemEncoderStub(dependency.channel)

    async def model(self) -> tuple[str, int]:
        """Its version and the components of its vectors."""
        method: Any = self._stub.GetModel
        answer: model_pb2.GetModelResponse = await self._dependency.call(
            method, model_pb2.GetModelRequest(), timeout_s=_QUICK_S
        )
        return answer.model.version, answer.model.dimensions

    async def encode(self, items: Sequence[Any]) -> Encoded:
        """Those of `items` that can be encoded, with their vectors."""
        request = item_encoder_pb2.EncodeItemsRequest(items=items, priority=priority_pb2.PRIORITY_BULK)
        method: Any = self._stub.EncodeItems
        answer: item_encoder_pb2.EncodeItemsResponse = await self._dependency.call(method, request, timeout_s=_BATCH_S)
        failed = {error.row: error.message for error in answer.errors}
        rows = answer.embeddings
        width = len(rows.data) // len(items)
        kept = [at for at in range(len(items)) if at not in failed]
        vectors = embeddings_pb2.Embeddings(
            data=b"".join(rows.data[at * width : (at + 1) * width] for at in kept),
            dimensions=rows.dimensions,
            dtype=rows.dtype,
            model_version=rows.model_version,
        )
        failures = {items[at].id: why for at, why in failed.items()}
        return Encoded([items[at] for at in kept], vectors, rows.model_version, failures)
