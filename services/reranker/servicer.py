"""`aisle.rerank.v1.Reranker`: proto ↔ engine."""

from typing import Any

from aisle.common.v1 import model_pb2
from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc

from services.reranker.texts import ItemTexts
from shared.bundles import BundleKind
from shared.errors import InvalidArgumentError
from shared.inference import BackendName, Scorer
from shared.rpc.deadline import deadline
from shared.serving import wire
from shared.serving.switch import Switch

MAX_ITEMS = 1_000
"""As many as a search may ask candidates for."""


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
