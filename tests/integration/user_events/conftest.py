"""The two homes of events, SQLite and a real PostgreSQL, behind one fixture: what is tested on one is tested on the
other."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.event import listen, remove

from services.user_events import schema_version
from services.user_events.database import Database
from services.user_events.settings import DatabaseSettings, UserEventsSettings
from services.user_events.store import Store
from tests.integration.user_events.client import Client
from tests.support.postgres import PostgresServer, running_server

HOMES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


def migrate(uri: str) -> None:
    """Makes the tables."""

    async def upgrade() -> None:
        database = Database(DatabaseSettings(uri=uri))
        await schema_version.upgrade(database)
        await database.close()

    asyncio.run(upgrade())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server that all tests share."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="module", params=HOMES)
def home(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def empty_uri(home: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database of the module's own, without tables."""
    if home == "sqlite":
        return str(tmp_path_factory.mktemp("events") / "events.db")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database()


@pytest.fixture(scope="module")
def uri(empty_uri: str) -> str:
    """The same with tables."""
    migrate(empty_uri)
    return empty_uri


@pytest.fixture(scope="module")
def settings(uri: str) -> UserEventsSettings:
    # A machine that tests share is slow at times; what is kept for others to see would hide what is new.
    return UserEventsSettings(uri=uri, read_timeout_s=20, write_timeout_s=20, cache_s=0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(settings: UserEventsSettings) -> AsyncIterator[Store]:
    opened = await Store.open(settings)
    yield opened
    await opened.close()


@pytest.fixture
def client(store: Store) -> Client:
    return Client(store)


@pytest.fixture
def looked_at(store: Store) -> Iterator[list[int]]:
    """How many numbers of the log each statement that pages through it may look at."""
    stretches: list[int] = []

    def note(_connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        if "ORDER BY events.seq" in statement:
            (bounds,) = context.compiled_parameters
            stretches.append(bounds.get("seq_2", 2**63) - bounds["seq_1"])

    reads = store.database._reads.sync_engine
    listen(reads, "before_cursor_execute", note)
    yield stretches
    remove(reads, "before_cursor_execute", note)


@pytest.fixture
def database_bytes(home: str, uri: str, request: pytest.FixtureRequest) -> "DatabaseBytes":
    return DatabaseBytes(home, uri, request)


class DatabaseBytes:
    """Everything that the database holds, as bytes to look through."""

    def __init__(self, home: str, uri: str, request: pytest.FixtureRequest) -> None:
        self._home = home
        self._uri = uri
        self._request = request

    def read(self) -> bytes:
        if self._home == "sqlite":
            return b"".join(path.read_bytes() for path in Path(self._uri).parent.glob(f"{Path(self._uri).name}*"))
        server: PostgresServer = self._request.getfixturevalue("postgres_server")
        return server.dump(self._uri.rpartition("/")[2])
