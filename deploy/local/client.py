"""Small clients for what the local commands ask: health, models, the index. A deadline on every call."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

import grpc
from aisle.common.v1 import model_pb2
from aisle.encoder.v1 import item_encoder_pb2_grpc, query_encoder_pb2_grpc
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc
from aisle.rerank.v1 import reranker_pb2_grpc
from aisle.retrieval.v1 import vector_retrieval_pb2, vector_retrieval_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.envoy import process as envoy
from deploy.local.errors import LocalError
from deploy.local.kinds import PROXY, Kind
from shared.rpc.tls import channel_credentials
from shared.tls import TlsFiles

_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
]
_GET_MODEL = {
    "query_encoder": query_encoder_pb2_grpc.QueryEncoderStub,
    "item_encoder": item_encoder_pb2_grpc.ItemEncoderStub,
    "reranker": reranker_pb2_grpc.RerankerStub,
}


_presented: ContextVar[TlsFiles | None] = ContextVar("presented", default=None)


@contextmanager
def presenting(files: TlsFiles | None) -> Iterator[None]:
    """Within it, every client here shows the certificate of `files`; `None` for a mesh in plain text."""
    before = _presented.set(files)
    try:
        yield
    finally:
        _presented.reset(before)


def credentials() -> grpc.ChannelCredentials | None:
    """What is shown now; `None` in plain text. Raises `LocalError` where it cannot be read."""
    files = _presented.get()
    try:
        return None if files is None else channel_credentials(files.read())
    except OSError as error:
        raise LocalError(f"{error.filename} cannot be read ({error.strerror}); `make up` makes it anew") from None


@contextmanager
def channel(address: str) -> Iterator[grpc.Channel]:
    """A connection to `address` that shares nothing with others: what it finds out is true now."""
    shown = credentials()
    opened = (
        grpc.insecure_channel(address, options=_OPTIONS)
        if shown is None
        else grpc.secure_channel(address, shown, options=_OPTIONS)
    )
    try:
        yield opened
    finally:
        opened.close()


def health(address: str, service: str = "", *, timeout_s: float = 1.0) -> str:
    """`SERVING`, `NOT_SERVING`, or `no answer`."""
    request = health_pb2.HealthCheckRequest(service=service)
    with channel(address) as opened:
        try:
            response = health_pb2_grpc.HealthStub(opened).Check(request, timeout=timeout_s)
        except grpc.RpcError:
            return "no answer"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


class Process(Protocol):
    """One process of a mesh, planned or running."""

    @property
    def kind(self) -> Kind: ...  # noqa: D102
    @property
    def address(self) -> str: ...  # noqa: D102
    @property
    def metrics_port(self) -> int: ...  # noqa: D102


def health_of(service: Process) -> str:
    """The health of any process of a mesh, as it tells it."""
    if service.kind is PROXY:
        return envoy.health(service.metrics_port)
    return health(service.address, service.kind.health)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a service says of itself. Empty, or `None`, where it says nothing of the kind. `model` is for people."""

    model: str = ""
    version: str = ""
    items: int | None = None
    generation: str | None = None
    """Of the live index; empty before its first write."""
    kind: str = ""
    """Of the model, as `GetModel` names it: `bi-encoder`, `cross-encoder`, `late-interaction`."""


def facts(name: str, address: str, *, timeout_s: float = 2.0) -> Facts:
    """What the service called `name` says of its model and its index; nothing where it does not answer."""
    with channel(address) as opened:
        try:
            if name in _GET_MODEL:
                model = _GET_MODEL[name](opened).GetModel(model_pb2.GetModelRequest(), timeout=timeout_s).model
                told = f"{model.version} ({model.name}, {model.backend} {model.precision})"
                return Facts(told, model.version, kind=model.kind)
            if name == "vector_retrieval":
                stub = vector_retrieval_pb2_grpc.VectorRetrievalStub(opened)
                status = stub.GetStatus(vector_retrieval_pb2.GetStatusRequest(), timeout=timeout_s)
                return Facts(status.model_version, status.model_version, status.items, status.generation)
        except grpc.RpcError:
            pass
    return Facts()


def holds(gateway: str, item_id: str, *, timeout_s: float = 5.0) -> bool:
    """Whether the index behind `gateway` has the item. Raises `LocalError` where it does not say."""
    with channel(gateway) as opened:
        try:
            catalog_pb2_grpc.CatalogStub(opened).GetItem(catalog_pb2.GetItemRequest(id=item_id), timeout=timeout_s)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return False
            raise LocalError(f"the gateway on {gateway} answered {error.code().name}: {error.details()}") from None
    return True
