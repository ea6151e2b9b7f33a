"""Who is forgotten is gone: from every answer, and from every file of the database. In a database of its own, for one
with many rows has single copies in the gaps of SQLite's pages (docs/behaviour.md)."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator

import pytest
from aisle.events.v1 import user_events_pb2 as pb
from sqlalchemy import select

from services.user_events import background, database
from services.user_events.background import Background
from services.user_events.retention import Retention
from services.user_events.schema import users
from services.user_events.settings import UserEventsSettings
from services.user_events.store import now_micros
from shared.errors import NotFoundError
from shared.rpc.context import set_deadline
from tests.integration.user_events.client import PURCHASE, SEARCH, Client, ago, event, fresh
from tests.integration.user_events.conftest import DatabaseBytes
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

WISH = "a wish that nobody else has"


async def traces_of(user: str, client: Client, home: str) -> list[bytes]:
    """What the database holds of `user`, as it holds it."""
    key = (await client.export(user))[0].user_key
    # A dump shows bytes in hexadecimal.
    return [WISH.encode(), key if home == "sqlite" else key.hex().encode()]


@pytest.fixture
def reader(home: str, uri: str, store: object) -> Iterator[sqlite3.Connection]:
    """Somebody who goes on reading what is there now until the transaction ends."""
    if home != "sqlite":
        pytest.skip("of SQLite: its log is not emptied while somebody reads by it")
    connection = sqlite3.connect(uri, isolation_level=None)
    yield connection
    connection.close()


def read_on(reader: sqlite3.Connection) -> None:
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM events").fetchall()


async def test_a_forgotten_user_leaves_counts_and_a_receipt_and_nothing_else(
    client: Client, home: str, database_bytes: DatabaseBytes
) -> None:
    user, item, other = fresh("user"), fresh("item"), fresh("user")
    await client.write(
        event(PURCHASE, user_id=user, item_id=item),
        event(SEARCH, user_id=user, query=WISH),
        event(user_id=other, item_id=item),
    )
    traces = await traces_of(user, client, home)
    assert all(trace in database_bytes.read() for trace in traces)
    receipt = await client.forget(user)
    assert receipt.events == 2
    assert receipt.id
    assert receipt.forgotten_at.ToMicroseconds() > ago(minutes=1).ToMicroseconds()
    assert await client.history(user) == pb.GetHistoryResponse()
    assert await client.export(user) == []
    assert len((await client.history(other)).events) == 1
    (stats,) = await client.stats(item)
    assert (stats.views, stats.purchases) == (1, 1)
    held = database_bytes.read()
    assert receipt.id.encode() in held
    assert not [trace for trace in traces if trace in held]


async def test_nobody_is_forgotten_twice(client: Client) -> None:
    user = fresh("user")
    await client.write(event(user_id=user))
    await client.forget(user)
    for unknown in (user, fresh("user")):
        with pytest.raises(NotFoundError) as refused:
            await client.forget(unknown)
        assert unknown not in str(refused.value)


async def test_a_user_who_comes_back_has_no_version_that_was_known_before(client: Client) -> None:
    user = fresh("user")
    versions = set()
    for _ in range(3):
        await client.write(event(user_id=user))
        history = await client.history(user, known_version=max(versions, default=0))
        assert not history.unchanged
        assert len(history.events) == 1
        versions.add(history.version)
        await client.forget(user)
    assert len(versions) == 3


async def test_who_is_forgotten_while_somebody_reads_is_told_so_and_gone_from_the_log_later(
    client: Client,
    reader: sqlite3.Connection,
    settings: UserEventsSettings,
    database_bytes: DatabaseBytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    user = fresh("user")
    await client.write(event(SEARCH, user_id=user, query=WISH))
    traces = await traces_of(user, client, "sqlite")
    read_on(reader)
    assert (await client.forget(user)).events == 1
    assert all(trace in database_bytes.read() for trace in traces)
    reader.execute("ROLLBACK")
    monkeypatch.setattr(background, "_EMPTY_EVERY_S", 0.01)
    working = Background(client.store.database, settings.model_copy(update={"relations_every_s": 0}))
    working.start()
    until = time.monotonic() + 10
    while any(trace in database_bytes.read() for trace in traces):
        assert time.monotonic() < until
        await asyncio.sleep(0.01)
    await working.close()


async def test_nobody_who_writes_waits_for_a_reader_until_the_log_is_emptied(
    client: Client, reader: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_EMPTY_S", 30.0)
    await client.write(event())
    read_on(reader)
    emptying = asyncio.create_task(client.store.database.empty_log())
    for _ in range(5):
        await client.write(event())
    assert not emptying.done()
    reader.execute("ROLLBACK")
    assert await emptying


async def test_what_retention_deletes_is_gone_from_the_log(
    client: Client, home: str, database_bytes: DatabaseBytes
) -> None:
    user = fresh("user")
    await client.write(event(SEARCH, user_id=user, query=WISH, occurred_at=ago(days=31)))
    traces = await traces_of(user, client, home)
    assert await Retention(client.store.database, 30).run(now_micros()) == 1
    assert not [trace for trace in traces if trace in database_bytes.read()]


async def test_who_is_forgotten_is_told_so_before_the_deadline(
    client: Client, reader: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_EMPTY_S", 30.0)
    monkeypatch.setattr(database, "_ANSWER_S", 1.0)
    user = fresh("user")
    await client.write(event(user_id=user))
    read_on(reader)
    at = time.monotonic() + 2

    async def forget() -> pb.ForgetReceipt:
        set_deadline(at)
        return await client.forget(user)

    assert (await asyncio.create_task(forget())).events == 1
    assert time.monotonic() < at


@pytest.mark.postgres
async def test_who_is_forgotten_while_retention_runs_and_it_do_not_lock_each_other_out(
    postgres_server: PostgresServer, client: Client, home: str, uri: str
) -> None:
    if home != "postgres":
        pytest.skip("of PostgreSQL: SQLite has one writer at a time")
    user, other = fresh("user"), fresh("user")
    await client.write(*(event(user_id=one, occurred_at=ago(days=31)) for one in (user, other)))
    key = (await client.export(user))[0].user_key
    store = client.store

    async def waiting(transactions: int) -> None:
        until = time.monotonic() + 10
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        while await asyncio.to_thread(postgres_server.sql, query, uri.rpartition("/")[2]) != str(transactions):
            assert time.monotonic() < until
            await asyncio.sleep(0.02)

    async with store.database.writing() as connection:
        # Whoever wants the user's row stands behind this one, in the order in which they came.
        await connection.execute(select(users).where(users.c.user_key == key).with_for_update())
        forgetting = asyncio.create_task(client.forget(user))
        await waiting(1)
        deleting = asyncio.create_task(Retention(store.database, 30).run(now_micros()))
        await waiting(2)
    assert (await forgetting).events == 1
    assert await deleting == 1
    assert await client.export(other) == []
