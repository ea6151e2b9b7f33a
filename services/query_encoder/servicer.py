"""`aisle.encoder.v1.QueryEncoder`: proto ↔ engine."""

from typing import Any

from aisle.common.v1 import model_pb2
from aisle.encoder.v1 import query_encoder_pb2, query_encoder_pb2_grpc

from services.query_encoder import wire_users
from services.query_encoder.model import QueryModel
from services.query_encoder.users import UserModelName
from shared.errors import InvalidArgumentError
from shared.inference import BackendName
from shared.rpc import embeddings
from shared.rpc.deadline import deadline
from shared.serving import wire
from shared.serving.switch import Switch

MAX_QUERIES = 256
"""As many as keep one answer well under a megabyte at 768 dimensions."""
MAX_QUERIES_WITH_TOKENS = 32
"""Below the 4 MiB that gRPC's clients read by default, at 64 tokens a query and 768 dimensions."""


class QueryEncoderServicer(query_encoder_pb2_grpc.QueryEncoderServicer):
    """Serves one encoder at a time, and the models of a user that are built on it."""

    def __init__(self, models: Switch[QueryModel], backend: BackendName, default_user_model: UserModelName) -> None:
        self._models = models
        self._backend = backend
        self._default_user_model = default_user_model

    async def EncodeQueries(
        self, request: query_encoder_pb2.EncodeQueriesRequest, context: Any
    ) -> query_encoder_pb2.EncodeQueriesResponse:
        """See the proto."""
        with_tokens = request.include_token_embeddings
        wire.check_count(len(request.queries), "queries", MAX_QUERIES_WITH_TOKENS if with_tokens else MAX_QUERIES)
        found = [wire.query_violation(query, f"queries[{i}]") for i, query in enumerate(request.queries)]
        if violations := [violation for violation in found if violation]:
            raise InvalidArgumentError(violations)
        with self._models.use() as model:
            encoding = await model.encoder.encode_queries(
                list(request.queries),
                token_vectors=with_tokens,
                priority=wire.priority(request.priority),
                deadline=deadline(),
            )
            version = model.bundle.version
            return query_encoder_pb2.EncodeQueriesResponse(
                embeddings=embeddings.pack(encoding.vectors, version),
                errors=[wire.row_error(row, error) for row, error in sorted(encoding.failures.items())],
                token_embeddings=[embeddings.pack(rows, version) for rows in encoding.rows],
            )

    async def EncodeUsers(
        self, request: query_encoder_pb2.EncodeUsersRequest, context: Any
    ) -> query_encoder_pb2.EncodeUsersResponse:
        """See the proto."""
        with self._models.use() as model:
            version = model.bundle.version
            asked = wire_users.users_from_proto(request, version, model.bundle.manifest.dimensions)
            name = asked.model or self._default_user_model
            encoding = await model.users[name].encode(
                asked.histories, asked.item_vectors, priority=asked.priority, deadline=deadline()
            )
            return query_encoder_pb2.EncodeUsersResponse(
                embeddings=embeddings.pack(encoding.vectors, version),
                errors=[wire.row_error(row, error) for row, error in sorted(encoding.failures.items())],
                model=wire_users.MODELS[name],
            )

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Any) -> model_pb2.GetModelResponse:
        """See the proto."""
        bundle = self._models.now.bundle
        return wire.encoder_model(bundle, self._backend, bundle.manifest.max_query_tokens)
