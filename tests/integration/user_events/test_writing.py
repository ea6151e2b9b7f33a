"""Many writers, full buffers, and rows that a database will not have."""

import asyncio
import sqlite3

import pytest

from services.user_events.intake import Admitted
from services.user_events.journal import Journal
from services.user_events.settings import UserEventsSettings
from services.user_events.store import Store
from services.user_events.wire import event_from_proto
from shared.errors import OverloadedError, UnavailableError
from tests.integration.user_events.client import Client, event, fresh
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def poisoned(home: str, uri: str, request: pytest.FixtureRequest) -> str:
    """An item that the database refuses, whatever the rules of the service."""
    item = fresh("poison")
    if home == "sqlite":
        with sqlite3.connect(uri) as database:
            database.execute(
                f"CREATE TRIGGER t{item[7:]} BEFORE INSERT ON events WHEN NEW.item_id = '{item}' "
                "BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
    else:
        request.getfixturevalue("postgres_server").sql(
            f"ALTER TABLE events ADD CHECK (item_id <> '{item}') NOT VALID", uri.rpartition("/")[2]
        )
    return item


async def test_an_event_that_the_database_refuses_fails_alone(client: Client, poisoned: str) -> None:
    user = fresh("user")

    def batch(*items: str) -> list[object]:
        return [event(user_id=user, item_id=item) for item in items]

    answers = await asyncio.gather(
        client.write(*batch("a", "b")),
        client.write(*batch("c", poisoned, "d", "e")),
        client.write(*batch(poisoned)),
        client.write(*batch("f")),
    )
    assert [answer.accepted for answer in answers] == [2, 3, 0, 1]
    assert [[(error.row, error.reason) for error in answer.errors] for answer in answers] == [
        [],
        [(1, "STORE_REFUSED")],
        [(0, "STORE_REFUSED")],
        [],
    ]
    assert {past.item_id for past in (await client.history(user)).events} == set("abcdef")
    assert (await client.stats(poisoned))[0].views == 0


async def test_who_finds_the_buffer_full_is_asked_to_come_back(settings: UserEventsSettings) -> None:
    store = await Store.open(settings.model_copy(update={"write_buffer_events": 1_000, "commit_events": 100}))
    try:
        client = Client(store)
        user = fresh("user")
        batches = [[event(user_id=user) for _ in range(300)] for _ in range(12)]
        answers = await asyncio.gather(*(client.write(*batch) for batch in batches), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, OverloadedError)]
        assert 0 < len(refused) < len(batches)
        assert all(error.retry_after_s > 0 for error in refused)
        assert len(await client.export(user)) == 300 * (len(batches) - len(refused))
    finally:
        await store.close()


async def test_a_caller_that_left_before_its_turn_leaves_nothing(settings: UserEventsSettings) -> None:
    store = await Store.open(settings.model_copy(update={"commit_events": 1}))
    try:
        client = Client(store)
        stays, leaves = fresh("user"), fresh("user")
        calls = [client.write(*(event(user_id=stays) for _ in range(200))), client.write(event(user_id=leaves))]
        first, second = map(asyncio.ensure_future, calls)
        await asyncio.sleep(0)
        second.cancel()
        assert (await first).accepted == 200
        await client.write(event(user_id=stays))
        assert (await client.history(leaves)).version == 0
    finally:
        await store.close()


async def test_what_waits_is_written_when_the_service_ends(settings: UserEventsSettings, client: Client) -> None:
    store = await Store.open(settings)
    user = fresh("user")
    writing = [asyncio.create_task(Client(store).write(event(user_id=user))) for _ in range(20)]
    await asyncio.sleep(0)
    await store.close()
    assert [(await task).accepted for task in writing] == [1] * 20
    assert len((await client.history(user)).events) == 20


async def test_a_log_that_is_read_while_others_write_misses_nothing(settings: UserEventsSettings, home: str) -> None:
    # PostgreSQL numbers rows before it shows them: what counts is that a reader never passes a number to come.
    stores = [await Store.open(settings) for _ in range(3 if home == "postgres" else 1)]
    try:
        reader = Client(stores[0])
        cursor = await reader.end()
        sent: set[str] = set()
        seen: list[str] = []

        async def write(store: Store) -> None:
            for size in (1, 40, 3, 17) * 2:
                batch = [event() for _ in range(size)]
                await Client(store).write(*batch)
                sent.update(one.id for one in batch)

        async def read(until: asyncio.Event) -> None:
            nonlocal cursor
            while True:
                last = until.is_set()
                for page in await reader.pages(cursor=cursor):
                    seen.extend(logged.event.id for logged in page.events)
                    cursor = page.cursor
                if last:
                    return

        written = asyncio.Event()
        reading = asyncio.create_task(read(written))
        await asyncio.gather(*(write(store) for store in stores for _ in range(3)))
        written.set()
        await reading
        assert len(seen) == len(set(seen))
        assert set(seen) == sent
    finally:
        for store in stores:
            await store.close()


@pytest.mark.postgres
async def test_a_log_does_not_end_behind_a_number_that_is_still_to_come(
    postgres_server: PostgresServer, client: Client, settings: UserEventsSettings, home: str
) -> None:
    if home != "postgres":
        pytest.skip("of PostgreSQL: SQLite numbers rows in the order in which they are committed")
    start = await client.end()
    intake = client.store
    slow, quick = event(item_id=fresh()), event(item_id=fresh())
    admitted = intake.admit(event_from_proto(slow))
    assert isinstance(admitted, Admitted)
    async with intake.database.writing() as transaction:
        await Journal(intake.database).add(transaction, [admitted.event])
        # Has a higher number, and is there first.
        await client.write(quick)
        reading = asyncio.create_task(client.log(cursor=start))
        await asyncio.sleep(0.3)
    assert [logged.event.id for logged in await reading] == [slow.id, quick.id]
    async with intake.database.writing() as transaction:
        await Journal(intake.database).add(transaction, [])
        with pytest.raises(UnavailableError):
            await client.log(cursor=start)


async def test_a_database_that_is_locked_is_unavailable_and_then_is_not(
    settings: UserEventsSettings, home: str, uri: str
) -> None:
    if home != "sqlite":
        pytest.skip("of SQLite: the whole file has one lock")
    store = await Store.open(settings.model_copy(update={"write_timeout_s": 0.2}))
    try:
        client = Client(store)
        sent = event()
        blocker = sqlite3.connect(uri, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError):
            await client.write(sent)
        assert await store.check() is None
        blocker.execute("ROLLBACK")
        blocker.close()
        assert (await client.write(sent)).duplicates == 0
    finally:
        await store.close()


async def test_who_is_forgotten_does_not_wait_for_a_pause(client: Client) -> None:
    user = fresh("user")
    await client.write(event(user_id=user))
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await client.write(*(event() for _ in range(20)))

    writing = [asyncio.create_task(write()) for _ in range(8)]
    await asyncio.sleep(0.2)
    try:
        receipt = await asyncio.wait_for(client.forget(user), 10)
        assert receipt.events == 1
    finally:
        stop.set()
        await asyncio.gather(*writing)
