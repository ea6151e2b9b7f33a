"""What the job of a re-index asks of the service, over the wire."""

from collections.abc import AsyncIterator

import grpc
import pytest
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from aisle.retrieval.v1 import vector_retrieval_pb2_grpc

from services.vector_retrieval.clients import IndexClient, Seen
from shared.rpc.client import Dependency


class Verifying(vector_retrieval_pb2_grpc.VectorRetrievalServicer):
    def __init__(self) -> None:
        self.seen = pb.Verification()

    async def VerifyGeneration(
        self, request: pb.VerifyGenerationRequest, context: object
    ) -> pb.VerifyGenerationResponse:
        return pb.VerifyGenerationResponse(verification=self.seen)


@pytest.fixture
def served() -> Verifying:
    return Verifying()


@pytest.fixture
async def index(served: Verifying) -> AsyncIterator[IndexClient]:
    server = grpc.aio.server()
    vector_retrieval_pb2_grpc.add_VectorRetrievalServicer_to_server(served, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    dependency = Dependency("vector_retrieval", "aisle.retrieval.v1.VectorRetrieval", f"127.0.0.1:{port}")
    yield IndexClient(dependency)
    await dependency.close()
    await server.stop(None)


async def test_how_a_generation_compares(served: Verifying, index: IndexClient) -> None:
    served.seen = pb.Verification(recall=0.9, missing=3, problems=["3 items are missing"])
    assert await index.verify("new", 0.95) == Seen(missing=3, recall=0.9)
