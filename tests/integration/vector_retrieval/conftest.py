"""The two homes of the index, Milvus Lite and a real server, behind one fixture: what is tested on one is tested
on the other."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.vector_retrieval.servicer import VectorRetrievalServicer
from services.vector_retrieval.settings import VectorRetrievalSettings
from services.vector_retrieval.store import Store
from tests.integration.vector_retrieval.servers import MilvusServer, installed
from tests.integration.vector_retrieval.shop import Shop

HOMES = ["lite", pytest.param("server", marks=pytest.mark.milvus_server)]


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """A server that all tests share."""
    if not installed():
        pytest.skip("no Milvus server on this machine: run `make milvus-server`")
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.fixture(scope="module", params=HOMES)
def home(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def settings(
    home: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> VectorRetrievalSettings:
    """An index of its own for each module."""
    if home == "server":
        uri = request.getfixturevalue("milvus_server").uri
    else:
        uri = str(tmp_path_factory.mktemp("lite") / "milvus.db")
    return VectorRetrievalSettings(uri=uri, index=f"test_{uuid.uuid4().hex[:8]}", search_timeout_s=20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(settings: VectorRetrievalSettings) -> AsyncIterator[Store]:
    opened = await Store.open(settings)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="module")
async def empty_store(home: str, settings: VectorRetrievalSettings, tmp_path: Path) -> AsyncIterator[Store]:
    """An index that nobody has written to."""
    uri = settings.uri if home == "server" else str(tmp_path / "milvus.db")
    opened = await Store.open(settings.model_copy(update={"uri": uri, "index": "empty"}))
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def servicer(store: Store) -> VectorRetrievalServicer:
    return VectorRetrievalServicer(store)


@pytest.fixture
def shop(servicer: VectorRetrievalServicer) -> Shop:
    return Shop(servicer)


@pytest.fixture
def can_rank_by_words(home: str) -> None:
    if home == "server":
        pytest.skip("Milvus 2.3 has no BM25")
