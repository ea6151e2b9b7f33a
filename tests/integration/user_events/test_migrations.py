"""The schema, up and down, and what happens where it is not what the code needs."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect
from sqlalchemy.engine import Connection

from services.user_events import schema_version
from services.user_events.database import Database
from services.user_events.schema import metadata
from services.user_events.settings import DatabaseSettings, UserEventsSettings
from services.user_events.store import Store
from shared.errors import FailedPreconditionError
from tests.integration.user_events.client import Client, event
from tests.support.postgres import PostgresServer

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def database(home: str, tmp_path: Path, request: pytest.FixtureRequest) -> Database:
    uri = str(tmp_path / "e.db") if home == "sqlite" else request.getfixturevalue("postgres_server").new_database()
    return Database(DatabaseSettings(uri=uri))


def uri_of(database: Database) -> str:
    return database._settings.uri


async def tables(database: Database) -> set[str]:
    async with database.reading() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


async def test_up_and_down_and_up(database: Database) -> None:
    assert await schema_version.current(database) == ""
    await schema_version.upgrade(database)
    assert await schema_version.current(database) == schema_version.head()
    assert await tables(database) == {*metadata.tables, "alembic_version"}
    await schema_version.downgrade(database, schema_version.NOTHING)
    assert await tables(database) == {"alembic_version"}
    await schema_version.upgrade(database)
    await schema_version.upgrade(database)
    await schema_version.check(database)
    await database.close()


async def test_migrations_make_what_the_code_says(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    await schema_version.upgrade(database)
    async with database.reading() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


async def test_two_that_migrate_at_once_do_not_meet(database: Database) -> None:
    others = [Database(DatabaseSettings(uri=uri_of(database))) for _ in range(3)]
    await asyncio.gather(*(schema_version.upgrade(each) for each in (database, *others)))
    await schema_version.check(database)
    for each in (database, *others):
        await each.close()


async def test_a_file_is_migrated_by_the_service_and_a_server_by_the_job(database: Database, home: str) -> None:
    uri = uri_of(database)
    await database.close()
    if home == "sqlite":
        store = await Store.open(UserEventsSettings(uri=uri))
    else:
        with pytest.raises(FailedPreconditionError, match=r"schema none.*needs 0001: run `python -m .*migrate`"):
            await Store.open(UserEventsSettings(uri=uri))
        assert job(uri) == f"schema: none → {schema_version.head()}"
        store = await Store.open(UserEventsSettings(uri=uri))
    assert (await Client(store).write(event())).accepted == 1
    await store.close()
    assert job(uri, "--to", "base") == f"schema: {schema_version.head()} → none"


@pytest.mark.postgres
def test_the_service_does_not_start_on_another_schema(postgres_server: PostgresServer) -> None:
    uri = postgres_server.new_database()
    done = subprocess.run(
        [sys.executable, "-m", "services.user_events", "--uri", uri, "--port", "0", "--metrics-port", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert "run `python -m services.user_events.migrate`" in done.stderr
    assert "Traceback" not in done.stderr


def job(uri: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "services.user_events.migrate", "--uri", uri, *flags],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
