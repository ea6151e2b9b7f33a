"""`aisle.encoder.v1.QueryEncoder`: proto ↔ engine."""

from collections.abc import Mapping
from typing import Any

from aisle.common.v1 import model_pb2
from aisle.encoder.v1 import query_encoder_pb2, query_encoder_pb2_grpc

from services.query_encoder import wire_users
from services.query_encoder.users import UserModel, UserModelName
from shared.errors import InvalidArgumentError
from shared.inference import BackendName, BiEncoder
from shared.rpc import embeddings
from shared.rpc.deadline import deadline
from shared.serving import wire

MAX_QUERIES = 256
"""As many as keep one answer well under a megabyte at 768 dimensions."""


class QueryEncoderServicer(query_encoder_pb2_grpc.QueryEncoderServicer):
    """Serves one encoder, and the models of a user that are built on it."""

    def __init__(
        self,
        encoder: BiEncoder,
        backend: BackendName,
        users: Mapping[UserModelName, UserModel],
        default_user_model: UserModelName,
    ) -> None:
        self._encoder = encoder
        self._users = users
        self._default_user_model = default_user_model
        manifest = encoder.bundle.manifest
        self._model = wire.model(
            encoder.bundle,
            backend,
            kind=manifest.kind,
            dimensions=manifest.dimensions,
            max_tokens=manifest.max_query_tokens,
        )

    async def EncodeQueries(
        self, request: query_encoder_pb2.EncodeQueriesRequest, context: Any
    ) -> query_encoder_pb2.EncodeQueriesResponse:
        """See the proto."""
        wire.check_count(len(request.queries), "queries", MAX_QUERIES)
        found = [wire.query_violation(query, f"queries[{i}]") for i, query in enumerate(request.queries)]
        if violations := [violation for violation in found if violation]:
            raise InvalidArgumentError(violations)
        encoding = await self._encoder.encode_queries(
            list(request.queries), priority=wire.priority(request.priority), deadline=deadline()
        )
        return query_encoder_pb2.EncodeQueriesResponse(
            embeddings=embeddings.pack(encoding.vectors, self._encoder.version),
            errors=[wire.row_error(row, error) for row, error in sorted(encoding.failures.items())],
        )

    async def EncodeUsers(
        self, request: query_encoder_pb2.EncodeUsersRequest, context: Any
    ) -> query_encoder_pb2.EncodeUsersResponse:
        """See the proto."""
        asked = wire_users.users_from_proto(request, self._encoder.version, self._encoder.bundle.manifest.dimensions)
        name = asked.model or self._default_user_model
        encoding = await self._users[name].encode(
            asked.histories, asked.item_vectors, priority=asked.priority, deadline=deadline()
        )
        return query_encoder_pb2.EncodeUsersResponse(
            embeddings=embeddings.pack(encoding.vectors, self._encoder.version),
            errors=[wire.row_error(row, error) for row, error in sorted(encoding.failures.items())],
            model=wire_users.MODELS[name],
        )

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Any) -> model_pb2.GetModelResponse:
        """See the proto."""
        return model_pb2.GetModelResponse(model=self._model)
