"""The real processes on free ports, over Milvus Lite in a folder of the test run's own."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.encoder.v1 import item_encoder_pb2_grpc, query_encoder_pb2_grpc
from aisle.events.v1 import user_events_pb2_grpc
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc, gateway_pb2, gateway_pb2_grpc
from aisle.rerank.v1 import reranker_pb2_grpc
from aisle.retrieval.v1 import vector_retrieval_pb2_grpc

from deploy.local import client
from deploy.local.mesh import Mesh
from deploy.local.spec import KINDS, MeshSpec
from shared.catalogue.generator import generate
from shared.rpc.balancing import service_config
from shared.rpc.items import item_to_proto
from shared.rpc.tls import channel_credentials, expect_server
from tests.support.default_model import need_default_model

TIMEOUT_S = 10.0
GENERATED = 240
"""Enough for filters, pages and neighbours; loaded in seconds."""
BUNK_BEDS = {"bunk-1", "FUR-10010-1", "FUR-10010-2", "FUR-10010-3"}
"""All there are with stairs and for kids: whichever comes first answers that query."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.mesh)
            item.add_marker(pytest.mark.model)


@dataclass
class Shop:
    """A mesh that runs, and stubs to everything in it."""

    mesh: Mesh

    @cached_property
    def channels(self) -> dict[str, grpc.Channel]:
        return {kind.name: self.connect(kind.name) for kind in KINDS}

    def connect(self, name: str) -> grpc.Channel:
        """A channel to one service as its callers take it: through the proxy, or balancing over the replicas as
        docs/balancing.md tells callers to; and with a certificate, if there are."""
        spec, operator = self.mesh.spec, self.mesh.spec.operator
        alone = bool(spec.listeners) or len(spec.replicas(name)) == 1
        options: list[tuple[str, Any]] = [
            ("grpc.service_config", service_config(client_balancing=not alone)),
            # What was stopped and started again is found as soon as the services find it, not after gRPC's minutes.
            ("grpc.max_reconnect_backoff_ms", 200),
        ]
        if operator is None:
            return grpc.insecure_channel(spec.target(name), options)
        if not spec.listeners:
            options.append(expect_server(name))
        return grpc.secure_channel(spec.target(name), channel_credentials(operator.read()), options)

    @property
    def gateway(self) -> Any:
        return gateway_pb2_grpc.GatewayStub(self.channels["gateway"])

    @property
    def catalog(self) -> Any:
        return catalog_pb2_grpc.CatalogStub(self.channels["gateway"])

    @property
    def retrieval(self) -> Any:
        return vector_retrieval_pb2_grpc.VectorRetrievalStub(self.channels["vector_retrieval"])

    @property
    def query_encoder(self) -> Any:
        return query_encoder_pb2_grpc.QueryEncoderStub(self.channels["query_encoder"])

    @property
    def item_encoder(self) -> Any:
        return item_encoder_pb2_grpc.ItemEncoderStub(self.channels["item_encoder"])

    @property
    def user_events(self) -> Any:
        return user_events_pb2_grpc.UserEventsStub(self.channels["user_events"])

    @property
    def reranker(self) -> Any:
        return reranker_pb2_grpc.RerankerStub(self.channels["reranker"])

    def search(self, query: str = "kids bunk bed with stairs", timeout: float = TIMEOUT_S, **fields: Any) -> Any:
        return self.gateway.Search(gateway_pb2.SearchRequest(query=query, **fields), timeout=timeout)

    def wait_connected(self) -> None:
        """Returns once all of this shop's own channels are connected, also to what was away."""
        for channel in self.channels.values():
            grpc.channel_ready_future(channel).result(timeout=TIMEOUT_S)

    def health(self, name: str, service: str = "") -> str:
        with client.presenting(self.mesh.spec.operator):
            return client.health(self.mesh.address(name), service)

    def close(self) -> None:
        for channel in self.channels.values():
            channel.close()


def special_items() -> list[item_pb2.Item]:
    """Items that tests look for by name."""
    return [
        item_pb2.Item(
            id="bunk-1",
            title="Twin-over-Full Bunk Bed with Storage Stairs for Kids",
            brand="Brightnest",
            category_path=["Furniture", "Kids' Furniture", "Bunk Beds"],
            price=item_pb2.Money(currency_code="USD", units=749, nanos=990_000_000),
            in_stock=True,
            attributes={"color": item_pb2.Attribute(text=["espresso"])},
        ),
        item_pb2.Item(id="zh-1", title="无线蓝牙降噪耳机", brand="云听", language_code="zh"),
        item_pb2.Item(
            id="odd-1",
            title='Quirky "quoted" \\ lamp',
            brand='O"Brien \\ Söhne',
            category_path=["Lighting"],
            price=item_pb2.Money(currency_code="USD", units=12),
            in_stock=False,
        ),
    ]


def load(shop: Shop, items: list[item_pb2.Item]) -> Any:
    """Imports `items`, and returns the last acknowledgement."""
    batches = [catalog_pb2.ImportItemsRequest(items=items[at : at + 100]) for at in range(0, len(items), 100)]
    *_, last = shop.catalog.ImportItems(iter(batches), timeout=120)
    return last


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    need_default_model()
    folder = tmp_path_factory.mktemp("mesh")
    spec = MeshSpec.on_free_ports(index=folder / "index" / "milvus.db", folder=folder)
    with Mesh(spec) as mesh:
        running = Shop(mesh)
        items = special_items() + [item_to_proto(item) for item in islice(generate(), GENERATED)]
        last = load(running, items)
        assert (last.rows, last.rejected) == (len(items), 0)
        yield running
        running.close()
