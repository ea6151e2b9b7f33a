"""`aisle.rerank.v1.Reranker`: proto ↔ engine."""

from typing import Any

import numpy as np
from aisle.common.v1 import model_pb2
from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc
from numpy.typing import NDArray

from services.reranker.texts import ItemTexts
from shared.bundles import Bundle, BundleKind
from shared.errors import InvalidArgumentError
from shared.inference import BackendName, Scorer
from shared.rpc import embeddings
from shared.rpc.deadline import deadline
from shared.serving import wire
from shared.serving.switch import Switch

MAX_ITEMS = 1_000
"""As many as a search may ask candidates for."""
_QUERY_ROWS = "query_token_embeddings"
_LENGTH_TOLERANCE = 0.01
"""Of a row's unit length: far more than float16 takes from it."""


class RerankerServicer(reranker_pb2_grpc.RerankerServicer):
    """Serves one scorer at a time."""

    def __init__(self, models: Switch[Scorer], backend: BackendName) -> None:
        self._models = models
        self._backend = backend
        self._texts = ItemTexts()

    async def Rerank(self, request: reranker_pb2.RerankRequest, context: Any) -> reranker_pb2.RerankResponse:
        """See the proto."""
        if violation := wire.query_violation(request.query, "query"):
            raise InvalidArgumentError([violation])
        wire.check_count(len(request.items), "items", MAX_ITEMS)
        with self._models.use() as scorer:
            scores = await scorer.score(
                request.query,
                self._texts.of(scorer.bundle, request.items),
                query_rows=_query_rows(request, scorer.bundle),
                priority=wire.priority(request.priority),
                deadline=deadline(),
            )
            return reranker_pb2.RerankResponse(
                scores=[reranker_pb2.RerankScore(score=value) for value in scores.values],
                model_version=scorer.bundle.version,
                unscored=scores.unscored,
            )

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Any) -> model_pb2.GetModelResponse:
        """See the proto."""
        bundle = self._models.now.bundle
        cross = bundle.manifest.kind is BundleKind.CROSS_ENCODER
        return model_pb2.GetModelResponse(
            model=wire.model(
                bundle,
                self._backend,
                kind=bundle.manifest.kind if cross else "late-interaction",
                dimensions=0,
                max_tokens=bundle.manifest.max_item_tokens,
            )
        )


def _query_rows(request: reranker_pb2.RerankRequest, bundle: Bundle) -> NDArray[np.float32] | None:
    """The query's vectors, where they came with it and are of this model.

    Raises `InvalidArgumentError` where such ones are not what the query encoder gives.
    """
    given, manifest = request.query_token_embeddings, bundle.manifest
    if manifest.kind is not BundleKind.BI_ENCODER or given.model_version != bundle.version:
        return None
    rows = embeddings.unpack(given, _QUERY_ROWS)
    if given.dimensions != manifest.dimensions:
        raise InvalidArgumentError.of(
            f"{_QUERY_ROWS}.dimensions",
            f"must be {manifest.dimensions}, as the model has it, and is {given.dimensions}",
        )
    most = manifest.max_query_tokens + 1
    if not 2 <= len(rows) <= most:
        raise InvalidArgumentError.of(f"{_QUERY_ROWS}.data", f"must have 2 to {most} rows, has {len(rows)}")
    if np.abs(np.linalg.norm(rows, axis=1) - 1).max() > _LENGTH_TOLERANCE:
        raise InvalidArgumentError.of(f"{_QUERY_ROWS}.data", "must have rows of unit length")
    return rows
