"""The two homes of the index, Milvus Lite and a real server, behind one fixture: what is tested on one is tested
on the other."""

import itertools
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio
from pymilvus import MilvusClient, MilvusException

from services.vector_retrieval.servicer import VectorRetrievalServicer
from services.vector_retrieval.settings import VectorRetrievalSettings
from services.vector_retrieval.store import Store
from tests.integration.vector_retrieval.index import Index
from tests.integration.vector_retrieval.servers import MilvusServer, installed
from tests.integration.vector_retrieval.shop import Shop

_numbers = itertools.count()
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


@pytest_asyncio.fixture(loop_scope="module")
async def index(home: str, settings: VectorRetrievalSettings, tmp_path: Path) -> AsyncIterator[Index]:
    """One of the test's own."""
    uri = settings.uri if home == "server" else str(tmp_path / "milvus.db")
    own = settings.model_copy(
        update={"uri": uri, "index": f"{settings.index}_{next(_numbers)}", "cut_over_hold_s": 5.0}
    )
    store = await Store.open(own)
    yield Index(store)
    if home == "server":
        # Tests share the server: what one leaves loaded takes from the time of all that follow.
        await store._connection.write("drop", lambda client: remove(client, own.index))
    await store.close()


def remove(client: MilvusClient, index: str) -> None:
    for alias in (index, f"{index}__building", f"{index}__previous"):
        with suppress(MilvusException):
            client.drop_alias(alias)
    for name in client.list_collections():
        if name.startswith(f"{index}_"):
            client.drop_collection(name)
