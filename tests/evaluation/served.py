"""The running mesh as a way of searching: a catalogue through `Catalog`, then one `Search` a query."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc, gateway_pb2, gateway_pb2_grpc

from deploy.local.mesh import Mesh
from deploy.local.spec import MeshSpec
from shared.items import Item
from shared.rpc.items import item_to_proto

_PAGE = 100
_IMPORT_S, _ANSWER_S = 1_800.0, 30.0
_PATIENT = {
    # What is answered is measured, not how fast: no cap is to cost a query a part of its answer.
    "gateway": {f"AISLE_GATEWAY_{stage}_CAP_S": "10" for stage in ("ENCODE", "RETRIEVE", "RERANK")},
    "vector_retrieval": {"AISLE_VECTOR_RETRIEVAL_SEARCH_TIMEOUT_S": "10"},
}


class Served:
    """See `tests.evaluation.retrievers.Retriever`: one page of 100, which is what Recall@100 looks at."""

    def __init__(self, name: str, channel: grpc.Channel) -> None:
        self.name = name
        self._gateway = gateway_pb2_grpc.GatewayStub(channel)

    def search(self, query: str, depth: int) -> dict[str, float]:
        """Raises `RuntimeError` for an answer that something is missing from."""
        request = gateway_pb2.SearchRequest(query=query, page_size=min(depth, _PAGE))
        found = self._gateway.Search(request, timeout=_ANSWER_S)
        if found.info.degraded:
            raise RuntimeError(f"the mesh left something out: {found.info.degraded[0].message}")
        return {result.item.id: result.score for result in found.results}

    def judge(self, query: str, item_ids: Sequence[str]) -> None:
        """The score of a page has no meaning between queries."""


@contextmanager
def served(items: Sequence[Item], bundle: Path, reranker: Path | None, folder: Path) -> Iterator[Served]:
    """A mesh on free ports with the bi-encoder `bundle`; without a `reranker` none has a say. Its index in `folder`
    takes `items` beside those that it has. Raises `RuntimeError` where it does not take every one."""
    env = {name: dict(told) for name, told in _PATIENT.items()}
    if reranker is None:
        env["gateway"]["AISLE_GATEWAY_RERANK_COUNT"] = "0"
    else:
        env["reranker"] = {"AISLE_RERANKER_BUNDLE": str(reranker)}
    spec = MeshSpec.on_free_ports(index=folder / "index" / "milvus.db", folder=folder, bundle=bundle, env=env)
    with Mesh(spec, shared=False) as mesh, grpc.insecure_channel(mesh.address("gateway")) as channel:
        if items:
            _load(items, channel)
        told = "without a re-ranker" if reranker is None else f"re-ranked by {reranker.name}"
        yield Served(f"the mesh, {told}", channel)


def _load(items: Sequence[Item], channel: grpc.Channel) -> None:
    requests = (catalog_pb2.ImportItemsRequest(items=map(item_to_proto, part)) for part in _parts(items, 128))
    *_, last = catalog_pb2_grpc.CatalogStub(channel).ImportItems(requests, timeout=_IMPORT_S)
    if last.accepted != len(items):
        raise RuntimeError(f"the catalogue took {last.accepted} of {len(items)} items: {last.errors[:3]}")


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[at : at + size] for at in range(0, len(items), size))
