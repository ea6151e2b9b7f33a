"""The service as a process of its own, on free ports."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from aisle.retrieval.v1 import vector_retrieval_pb2_grpc

from tests.support import service_process


class ServiceProcess(service_process.ServiceProcess):
    """`python -m services.vector_retrieval` over `uri`."""

    name = "vector_retrieval"

    def __init__(self, uri: str, log: Path, **settings: str) -> None:
        super().__init__(log, uri=uri, **settings)
        self.stub = vector_retrieval_pb2_grpc.VectorRetrievalStub(self.channel)


@contextlib.contextmanager
def running(uri: str, log: Path, **settings: str) -> Iterator[ServiceProcess]:
    with service_process.serving(ServiceProcess(uri, log, **settings)) as service:
        yield service
