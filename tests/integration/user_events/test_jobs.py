"""The jobs: relations, retention, and the service that runs them by itself."""

import asyncio
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from aisle.events.v1 import user_events_pb2 as pb
from google.protobuf import duration_pb2
from sqlalchemy import func, select
from sqlalchemy.event import listen, remove

from services.user_events import relations, retention, stream
from services.user_events.background import Background
from services.user_events.relations import RelationsJob, RelationsJobSettings
from services.user_events.retention import Retention
from services.user_events.schema import counters, users
from services.user_events.schema import relations as table
from services.user_events.settings import UserEventsSettings
from services.user_events.store import Store, now_micros
from tests.integration.user_events.client import CART, IMPRESSION, PURCHASE, RETURN, VIEW, Client, ago, event, fresh
from tests.integration.user_events.process import EventsProcess
from tests.support.service_process import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


def job(uri: str, **settings: object) -> RelationsJobSettings:
    return RelationsJobSettings(uri=uri, relations_regularisation=5.0, **settings)  # type: ignore[arg-type]


async def shop(client: Client, tastes: int = 2) -> dict[int, list[str]]:
    """Customers of some tastes, each with ten items of its own. The items by taste."""
    items = {taste: [fresh(f"taste{taste}") for _ in range(6)] for taste in range(tastes)}
    for own in items.values():
        for customer in range(12):
            user = fresh("user")
            chosen = [own[(customer + step) % 6] for step in (0, 1, 3)]
            await client.write(*(event(PURCHASE, user_id=user, item_id=item) for item in chosen))
    return items


async def test_nothing_is_known_before_the_first_run(client: Client) -> None:
    answer = await client.related({"a": 1.0})
    assert answer == pb.GetRelatedItemsResponse()


async def test_what_goes_together_is_learned_and_replaced_as_a_whole(client: Client, uri: str) -> None:
    items = await shop(client)
    told = await relations.run(job(uri))
    assert "interactions of 24 users" in told
    first = await client.related({items[0][0]: 1.0})
    assert {item.item_id for item in first.items[:3]} <= set(items[0]) - {items[0][0]}
    assert [item.score for item in first.items] == sorted((item.score for item in first.items), reverse=True)
    assert not {item.item_id for item in first.items} & set(items[1])
    assert first.learned_at.ToMicroseconds() > ago(minutes=5).ToMicroseconds()

    more = await shop(client)
    assert await client.related({more[0][0]: 1.0}) == pb.GetRelatedItemsResponse(learned_at=first.learned_at)
    await relations.run(job(uri, relations_head_items=4))
    second = await client.related({more[0][0]: 1.0})
    assert second.learned_at.ToMicroseconds() > first.learned_at.ToMicroseconds()
    assert {item.item_id for item in second.items[:2]} <= set(more[0])
    async with client.store.database.reading() as connection:
        generations = (await connection.execute(select(func.count(table.c.learned_at.distinct())))).scalar_one()
    assert generations == 1


async def test_relations_add_up_by_weight(client: Client, uri: str) -> None:
    items = await shop(client)
    await relations.run(job(uri))
    one, other = items[0][0], items[0][2]
    expected: defaultdict[str, float] = defaultdict(float)
    for item, weight in ((one, 2.0), (other, 0.5)):
        for found in (await client.related({item: 1.0}, limit=1000)).items:
            expected[found.item_id] += weight * found.score
    both = await client.related({one: 2.0, other: 0.5, fresh(): 3.0}, limit=1000)
    assert {found.item_id: found.score for found in both.items} == pytest.approx(dict(expected))
    assert len((await client.related({one: 2.0, other: 0.5}, limit=3)).items) == 3


async def test_young_relations_are_left_as_they_are(client: Client, uri: str) -> None:
    await shop(client)
    await relations.run(job(uri))
    before = (await client.related({"a": 1.0})).learned_at
    assert "left as they are" in await relations.run(job(uri, unless_younger_s=60.0))
    assert (await client.related({"a": 1.0})).learned_at == before


async def test_a_broken_run_leaves_the_old_relations_and_no_rest(client: Client, uri: str) -> None:
    items = await shop(client)
    await relations.run(job(uri))
    before = await client.related({items[0][0]: 1.0})

    class BrokenError(Exception):
        pass

    class Broken(RelationsJob):
        async def _clean(self, learned_at: int) -> None:
            raise BrokenError

    class BrokenEarlier(RelationsJob):
        async def _write(self, *arguments: object) -> int:
            await super()._write(*arguments)  # type: ignore[arg-type]
            raise BrokenError

    with pytest.raises(BrokenError):
        await BrokenEarlier(client.store.database, job(uri)).run(now_micros())
    assert await client.related({items[0][0]: 1.0}) == before
    with pytest.raises(BrokenError):
        await Broken(client.store.database, job(uri)).run(now_micros())
    assert (await client.related({items[0][0]: 1.0})).learned_at != before.learned_at
    await relations.run(job(uri))
    async with client.store.database.reading() as connection:
        generations = (await connection.execute(select(func.count(table.c.learned_at.distinct())))).scalar_one()
    assert generations == 1


async def test_what_is_older_than_it_may_become_is_deleted(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BATCH_EVENTS", 10)
    both, gone, item = fresh("user"), fresh("user"), fresh("item")
    await client.write(
        *(event(user_id=both, item_id=item, occurred_at=ago(days=40 + at)) for at in range(25)),
        *(event(user_id=gone, item_id=item, occurred_at=ago(days=40 + at)) for at in range(7)),
        event(IMPRESSION, user_id="", session_id="visit", item_ids=[item], occurred_at=ago(days=31)),
        event(user_id=both, item_id=item, occurred_at=ago(days=29)),
    )
    before = await client.history(both)
    assert await Retention(client.store.database, 0).run(now_micros()) == 0
    assert len((await client.history(both)).events) == 26
    assert await Retention(client.store.database, 30).run(now_micros()) == 33
    after = await client.history(both, known_version=before.version)
    assert len(after.events) == 1
    assert not after.unchanged
    assert await client.history(gone) == pb.GetHistoryResponse()
    async with client.store.database.reading() as connection:
        assert (await connection.execute(select(func.count()).select_from(users))).scalar_one() > 0
    (stats,) = await client.stats(item, window=duration_pb2.Duration(seconds=90 * 86_400))
    assert (stats.views, stats.impressions) == (33, 1)


async def test_counters_that_nobody_can_ask_about_are_deleted(client: Client) -> None:
    old, young = fresh("item"), fresh("item")
    await client.write(event(item_id=old, occurred_at=ago(days=402)), event(item_id=young, occurred_at=ago(days=399)))
    await Retention(client.store.database, 0).run(now_micros())
    async with client.store.database.reading() as connection:
        found = set((await connection.execute(select(counters.c.item_id))).scalars())
    assert young in found
    assert old not in found


async def test_counters_go_in_batches_wherever_they_stand(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BATCH_COUNTERS", 4)
    items = [fresh("item") for _ in range(5)]
    for item in items:
        young = [event(item_id=item, occurred_at=ago(days=day)) for day in (1, 399)]
        old = [event(item_id=item, occurred_at=ago(days=402 + at)) for at in range(7)]
        await client.write(*young, *old, event(CART, item_id=item, occurred_at=ago(days=402)))
    deleted: list[int] = []

    def count(_connection: Any, cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith("DELETE FROM counters"):
            deleted.append(cursor.rowcount)

    writes = client.store.database._writes.sync_engine
    listen(writes, "after_cursor_execute", count)
    await Retention(client.store.database, 0).run(now_micros())
    remove(writes, "after_cursor_execute", count)
    assert sum(deleted) == 5 * 8
    assert max(deleted) <= 4
    async with client.store.database.reading() as connection:
        query = select(counters.c.item_id).where(counters.c.item_id.in_(items))
        left = (await connection.execute(query)).scalars().all()
    assert sorted(left) == sorted(items * 2)


async def test_events_go_even_where_counters_cannot(client: Client) -> None:
    class BrokenError(Exception):
        pass

    class Broken(Retention):
        async def _delete_counters(self, before_hour: int) -> None:
            raise BrokenError

    user = fresh("user")
    await client.write(event(user_id=user, occurred_at=ago(days=31)))
    with pytest.raises(BrokenError):
        await Broken(client.store.database, 30).run(now_micros())
    assert await client.export(user) == []


async def test_of_two_that_delete_one_does(client: Client, home: str) -> None:
    if home != "postgres":
        pytest.skip("a file has one service")
    async with client.store.database.exclusively(retention._LOCK) as mine:
        assert mine
        assert await Retention(client.store.database, 0).run(now_micros()) is None
    assert await Retention(client.store.database, 0).run(now_micros()) == 0


async def test_a_long_log_before_the_window_is_looked_through_in_stretches(
    client: Client, uri: str, looked_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, items = fresh("old"), [fresh("item") for _ in range(50)]
    await client.write(*(event(item_id=old, occurred_at=ago(days=402)) for _ in range(50)))
    for item in items:
        await client.write(event(item_id=item), event(IMPRESSION, item_ids=[item]))
    monkeypatch.setattr(stream, "_LOOKED_AT", 20)
    monkeypatch.setattr(relations, "_PAGE_EVENTS", 6)
    found = [row["item_id"] async for page in RelationsJob(client.store.database, job(uri))._pages() for row in page]
    assert max(looked_at) == 20
    assert old not in found
    assert [item for item in found if item in items] == items


async def test_the_service_has_the_relations_learned_by_itself(uri: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(EventsProcess(uri, log, relations_every_s=1, relations_regularisation=5)) as service:
        customers = [fresh("user") for _ in range(10)]
        service.write(*(event(CART, user_id=user, item_id=item) for user in customers for item in ("left", "right")))
        service.write(event(RETURN, item_id="left"), event(VIEW, item_id="other"))
        request = pb.GetRelatedItemsRequest(items=[pb.WeightedItem(item_id="left", weight=1)])
        until = time.monotonic() + 25
        while not (answer := service.stub.GetRelatedItems(request, timeout=5)).items:
            assert time.monotonic() < until, log.read_text()
            await asyncio.sleep(0.1)
        assert answer.items[0].item_id == "right"


async def test_what_runs_in_the_background_ends_with_the_service(settings: UserEventsSettings) -> None:
    store = await Store.open(settings)
    background = Background(store.database, settings.model_copy(update={"relations_every_s": 0.01}))
    background.start()
    # Long enough for the job to have been started, and not for it to have ended.
    await asyncio.sleep(0.3)
    started = time.monotonic()
    await background.close()
    assert time.monotonic() - started < 6
    await store.close()
