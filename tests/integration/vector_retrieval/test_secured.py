"""A Milvus server that asks who calls, over TLS with a certificate of an authority of its own."""

import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pymilvus import MilvusClient

from services.vector_retrieval.schema import Row
from services.vector_retrieval.search import Consistency, Query
from services.vector_retrieval.settings import VectorRetrievalSettings
from services.vector_retrieval.store import Store
from shared.errors import UnavailableError
from shared.items import Item
from tests.integration.vector_retrieval.processes import ServiceProcess
from tests.integration.vector_retrieval.servers import MilvusServer, installed

pytestmark = pytest.mark.milvus_server

NAME = "milvus.test"
VECTOR = np.ones(4, dtype=np.float32)
ROOT = {"user": "root", "password": "Milvus"}


class Authority:
    """Certificates in `folder`, made by openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._openssl("req", "-x509", *self._key("ca"), "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def sign(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of a server that is called `name`, and 127.0.0.1."""
        (self.folder / "names").write_text(f"subjectAltName=DNS:{name},IP:127.0.0.1\n")
        self._openssl("req", *self._key("server"), "-out", "server.csr", "-subj", f"/CN={name}")
        authority = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        self._openssl("x509", "-req", "-in", "server.csr", *authority, "-out", "server.pem")
        return self.folder / "server.pem", self.folder / "server.key"

    def _key(self, name: str) -> list[str]:
        return ["-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key"]

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    if not installed():
        pytest.skip("no Milvus server on this machine: run `make milvus-server`")
    certificate, key = authority.sign(NAME)
    files = ["--server-pem-path", str(certificate), "--server-key-path", str(key)]
    running = MilvusServer(
        tmp_path_factory.mktemp("secured"),
        flags=["--authorization-enabled", "true", "--tls-mode", "1", *files],
        scheme="https",
        client={**ROOT, "secure": True, "server_pem_path": str(authority.certificate)},
    )
    try:
        running.start()
        yield running
    finally:
        running.end()


@pytest.fixture
def right(server: MilvusServer, authority: Authority) -> dict[str, object]:
    """Settings that open the store."""
    index = f"secured_{uuid.uuid4().hex[:8]}"
    return {"uri": server.uri, "index": index, "tls_ca_file": authority.certificate, "search_timeout_s": 20, **ROOT}


@asynccontextmanager
async def opened(settings: dict[str, object]) -> AsyncIterator[Store]:
    store = await Store.open(VectorRetrievalSettings(**settings))  # type: ignore[arg-type]
    yield store
    await store.close()


async def found(store: Store) -> list[str]:
    query = Query(vectors=VECTOR[None], model_version="m", limit=10, consistency=Consistency.STRONG)
    return [candidate.id for candidate in (await store.search(query)).candidates[0]]


@pytest.mark.parametrize(
    "credentials",
    [
        ROOT,
        {"user": "", "password": "", "token": "root:Milvus"},
        {**ROOT, "tls_server_name": NAME},
    ],
    ids=["user and password", "token", "server name"],
)
async def test_who_may_comes_in(right: dict[str, object], credentials: dict[str, object]) -> None:
    async with opened({**right, **credentials}) as store:
        assert await store.check() is None
        row = Row(Item(id="a", title="t", updated_at=datetime.now(UTC)), VECTOR, b"payload")
        assert await store.upsert([row], "m") == {}
        assert await found(store) == ["a"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"password": "not this one"}, "check the settings user and password, or token"),
        ({"user": "", "password": ""}, "check the settings user and password, or token"),
        ({"user": "", "password": "", "token": "nobody:nothing"}, "check the settings user and password, or token"),
        ({"tls_ca_file": None}, "check the settings uri, tls_ca_file and tls_server_name"),
        ({"tls_server_name": "another.test"}, "check the settings uri, tls_ca_file and tls_server_name"),
    ],
    ids=["password", "no credentials", "token", "authority", "name"],
)
async def test_who_may_not_is_told_which_setting_to_look_at(
    right: dict[str, object], wrong: dict[str, object], says: str
) -> None:
    async with opened({**right, **wrong}) as store:
        reason = await store.check()
        assert reason is not None
        assert says in reason
        with pytest.raises(UnavailableError, match=says):
            await found(store)
        row = Row(Item(id="a", title="t", updated_at=datetime.now(UTC)), VECTOR, b"payload")
        with pytest.raises(UnavailableError, match=says):
            await store.upsert([row], "m")


async def test_a_user_without_rights_is_told_so(
    right: dict[str, object], server: MilvusServer, authority: Authority
) -> None:
    client = MilvusClient(server.uri, **ROOT, secure=True, server_pem_path=str(authority.certificate))
    client.create_user("reader", "Reader_123")
    client.close()
    async with opened({**right, "user": "reader", "password": "Reader_123"}) as store:
        row = Row(Item(id="a", title="t", updated_at=datetime.now(UTC)), VECTOR, b"payload")
        with pytest.raises(UnavailableError, match="check the setting user, or its rights"):
            await store.upsert([row], "m")


def test_a_service_with_a_wrong_password_says_so_and_keeps_it_to_itself(
    right: dict[str, object], tmp_path: Path
) -> None:
    flags = {"tls-ca-file": str(right["tls_ca_file"]), "user": "root", "password": "not this one"}
    service = ServiceProcess(str(right["uri"]), tmp_path / "log", **flags)
    try:
        service.wait_until(serving=False)
        service.wait_for_log("check the settings user and password")
        assert "not this one" not in service.log.read_text()
        assert "Traceback" not in service.log.read_text()
    finally:
        service.end()
