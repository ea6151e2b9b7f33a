"""`python -m services.vector_retrieval`."""

import contextlib
from collections.abc import Sequence

from aisle.retrieval.v1 import vector_retrieval_pb2, vector_retrieval_pb2_grpc

from services.vector_retrieval.gauges import IndexGauges
from services.vector_retrieval.servicer import VectorRetrievalServicer
from services.vector_retrieval.settings import VectorRetrievalSettings
from services.vector_retrieval.store import Store
from shared.rpc.server import ServedService, main

_NAME = vector_retrieval_pb2.DESCRIPTOR.services_by_name["VectorRetrieval"].full_name


async def build(settings: VectorRetrievalSettings, stack: contextlib.AsyncExitStack) -> Sequence[ServedService]:
    """Opens the store and serves it."""
    store = await Store.open(settings)
    stack.push_async_callback(store.close)
    gauges = IndexGauges(store)
    stack.push_async_callback(gauges.close)
    gauges.start()
    servicer = VectorRetrievalServicer(store)
    return [
        ServedService(
            name=_NAME,
            register=lambda server: vector_retrieval_pb2_grpc.add_VectorRetrievalServicer_to_server(servicer, server),
            check=store.check,
            shared_fate=True,
        )
    ]


if __name__ == "__main__":
    main("vector_retrieval", VectorRetrievalSettings, build)
