"""`aisle.rerank.v1.Reranker`: proto ↔ engine."""

from typing import Any

from aisle.common.v1 import model_pb2
from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc

from shared.bundles import BundleKind
from shared.errors import InvalidArgumentError
from shared.inference import BackendName, Scorer
from shared.rpc.deadline import deadline
from shared.serving import wire

MAX_ITEMS = 1_000
"""As many as a search may ask candidates for."""


class RerankerServicer(reranker_pb2_grpc.RerankerServicer):
    """Serves one scorer."""

    def __init__(self, scorer: Scorer, backend: BackendName) -> None:
        self._scorer = scorer
        manifest = scorer.bundle.manifest
        cross = manifest.kind is BundleKind.CROSS_ENCODER
        self._model = wire.model(
            scorer.bundle,
            backend,
            kind=manifest.kind if cross else "late-interaction",
            dimensions=0,
            max_tokens=manifest.max_item_tokens,
        )

    async def Rerank(self, request: reranker_pb2.RerankRequest, context: Any) -> reranker_pb2.RerankResponse:
        """See the proto."""
        if violation := wire.query_violation(request.query, "query"):
            raise InvalidArgumentError([violation])
        wire.check_count(len(request.items), "items", MAX_ITEMS)
        # The proto's Item has every field that templates read: a conversion would cost more than the rendering.
        scores = await self._scorer.score(
            request.query,
            [self._scorer.bundle.item_text(item) for item in request.items],
            priority=wire.priority(request.priority),
            deadline=deadline(),
        )
        return reranker_pb2.RerankResponse(
            scores=[reranker_pb2.RerankScore(score=value) for value in scores.values],
            model_version=self._scorer.bundle.version,
            unscored=scores.unscored,
        )

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Any) -> model_pb2.GetModelResponse:
        """See the proto."""
        return model_pb2.GetModelResponse(model=self._model)
