"""A gateway that only takes imports, for tests of those who send them."""

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from aisle.catalog.v1 import item_pb2
from aisle.common.v1 import row_error_pb2
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc


class ImportGateway(catalog_pb2_grpc.CatalogServicer):
    """Keeps what it is sent, but for items titled "refused". `fails_at`: the batch at which it gives up."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.titles: dict[str, str] = {}
        self.batches: list[int] = []
        self.fails_at = fails_at
        self.done = threading.Event()

    def ImportItems(self, request_iterator: Any, context: Any) -> Iterator[Any]:
        rows = rejected = 0
        for number, request in enumerate(request_iterator):
            if number == self.fails_at:
                context.abort(grpc.StatusCode.UNAVAILABLE, "out of order")
            self.batches.append(len(request.items))
            errors = []
            for item in request.items:
                if item.title == "refused":
                    rejected += 1
                    errors.append(
                        row_error_pb2.RowError(row=rows, item_id=item.id, field="title", message="is not wanted")
                    )
                else:
                    self.titles[item.id] = item.title
                rows += 1
            yield catalog_pb2.ImportItemsResponse(rows=rows, accepted=rows - rejected, rejected=rejected, errors=errors)
        self.done.set()

    def GetItem(self, request: Any, context: Any) -> Any:
        if request.id not in self.titles:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such item")
        return catalog_pb2.GetItemResponse(item=item_pb2.Item(id=request.id, title=self.titles[request.id]))


@contextmanager
def served(gateway: ImportGateway) -> Iterator[str]:
    """The gateway's address."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    catalog_pb2_grpc.add_CatalogServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
