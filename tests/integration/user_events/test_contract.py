"""What aisle.events.v1 promises, on both databases."""

import asyncio

import pytest
from aisle.catalog.v1 import item_pb2
from aisle.events.v1 import user_events_pb2 as pb
from google.protobuf import duration_pb2

from services.user_events import stream
from services.user_events.settings import UserEventsSettings
from services.user_events.store import Store
from shared import attribution
from shared.attribution import Attribution, AttributionTokens
from shared.errors import InvalidArgumentError
from tests.integration.user_events.client import (
    CART,
    CLICK,
    IMPRESSION,
    PURCHASE,
    RETURN,
    SEARCH,
    VIEW,
    Client,
    ago,
    event,
    fresh,
)
from tests.integration.user_events.conftest import DatabaseBytes

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKENS = AttributionTokens(attribution.DEVELOPMENT_KEY.encode())


async def test_an_event_is_kept_as_it_was_sent(client: Client) -> None:
    user = fresh("user")
    when = ago(hours=3)
    when.nanos = 123_456_000
    price = item_pb2.Money(currency_code="EUR", units=19, nanos=990_000_000)
    sent = event(
        PURCHASE,
        user_id=user,
        session_id="visit",
        occurred_at=when,
        item_id="ünïcode-📦",
        quantity=3,
        price=price,
        properties={"device": "phone", "größe": "L"},
    )
    shown = event(
        IMPRESSION,
        user_id=user,
        item_ids=["c", "a", "b"],
        first_position=20,
        sampled_one_in=10,
        occurred_at=ago(hours=1),
    )
    assert await client.write(sent, shown) == pb.WriteEventsResponse(accepted=2)
    bought, seen = await client.export(user)
    assert bought.event == pb.PastEvent(
        id=sent.id, type=PURCHASE, occurred_at=when, item_id="ünïcode-📦", quantity=3, price=price
    )
    assert dict(bought.properties) == {"device": "phone", "größe": "L"}
    assert len(bought.user_key) == len(bought.session_key) == 16
    assert bought.user_key == seen.user_key
    assert (list(seen.item_ids), seen.first_position, seen.sampled_one_in) == (["c", "a", "b"], 20, 10)
    assert (seen.session_key, seen.event.quantity, bought.sampled_one_in) == (b"", 0, 1)
    assert bought.arrived_at.ToMicroseconds() > ago(minutes=1).ToMicroseconds()


async def test_an_event_without_a_time_occurred_when_it_arrived(client: Client) -> None:
    sent = event()
    await client.write(sent)
    (kept,) = await client.export(sent.user_id)
    assert kept.event.occurred_at == kept.arrived_at


async def test_an_event_that_is_sent_again_is_kept_once_and_counted_once(client: Client) -> None:
    item, user = fresh("item"), fresh("user")
    sent = event(CLICK, user_id=user, item_id=item)
    assert await client.write(sent, sent) == pb.WriteEventsResponse(accepted=2, duplicates=1)
    version = (await client.history(user)).version
    changed = event(PURCHASE, id=sent.id, user_id=user, item_id=item)
    assert await client.write(changed, event(item_id=item)) == pb.WriteEventsResponse(accepted=2, duplicates=1)
    history = await client.history(user)
    assert [past.type for past in history.events] == [CLICK]
    assert history.version == version
    (stats,) = await client.stats(item)
    assert (stats.clicks, stats.views, stats.purchases) == (1, 1, 0)


async def test_the_same_events_from_many_callers_at_once_are_kept_once(client: Client) -> None:
    item, user = fresh("item"), fresh("user")
    events = [event(user_id=user, item_id=item) for _ in range(50)]
    answers = await asyncio.gather(*(client.write(*events[at:], *events[:at]) for at in range(0, 50, 5)))
    assert sum(answer.accepted - answer.duplicates for answer in answers) == 50
    assert len((await client.history(user)).events) == 50
    assert (await client.stats(item))[0].views == 50


async def test_what_is_refused_is_named_and_its_neighbours_are_kept(client: Client) -> None:
    good = event()
    answer = await client.write(
        event(0),
        good,
        event(VIEW, item_id=""),
        event(SEARCH, query="x" * 501),
        event(properties={"contact": "jane@example.com"}),
        event(item_id="nul\0"),
    )
    assert answer.accepted == 1
    assert [(error.row, error.field, error.reason) for error in answer.errors] == [
        (0, "type", "INVALID_ARGUMENT"),
        (2, "item_id", "INVALID_ARGUMENT"),
        (3, "query", "INVALID_ARGUMENT"),
        (4, "properties", "PERSONAL_DATA"),
        (5, "item_id", "INVALID_ARGUMENT"),
    ]
    assert "jane" not in str(answer)
    assert [past.id for past in (await client.history(good.user_id)).events] == [good.id]


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_request_holds_1_to_1000_events(client: Client, count: int) -> None:
    with pytest.raises(InvalidArgumentError, match="events"):
        await client.write(*[event()] * count)


async def test_history_is_by_time_and_not_by_arrival(client: Client) -> None:
    user = fresh("user")
    for days in (2, 5, 1, 4):
        await client.write(event(user_id=user, item_id=f"{days} days ago", occurred_at=ago(days=days)))
    assert [past.item_id[0] for past in (await client.history(user)).events] == ["1", "2", "4", "5"]
    assert [past.item_id[0] for past in (await client.history(user, limit=2)).events] == ["1", "2"]
    assert [past.item_id[0] for past in (await client.history(user, since=ago(days=4.5))).events] == ["1", "2", "4"]


async def test_history_has_the_types_asked_for_and_impressions_only_then(client: Client) -> None:
    user = fresh("user")
    await client.write(*(event(kind, user_id=user) for kind in (SEARCH, IMPRESSION, VIEW, CART, RETURN)))
    kinds = {past.type for past in (await client.history(user)).events}
    assert kinds == {SEARCH, VIEW, CART, RETURN}
    kinds = {past.type for past in (await client.history(user, types=[IMPRESSION, CART])).events}
    assert kinds == {IMPRESSION, CART}


async def test_a_history_that_did_not_change_is_not_sent_again(client: Client) -> None:
    user = fresh("user")
    await client.write(event(user_id=user))
    before = await client.history(user)
    again = await client.history(user, known_version=before.version)
    assert again == pb.GetHistoryResponse(version=before.version, unchanged=True)
    await client.write(event(user_id=user))
    after = await client.history(user, known_version=before.version)
    assert after.version > before.version
    assert len(after.events) == 2


async def test_a_user_nobody_has_seen_has_no_history(client: Client) -> None:
    assert await client.history(fresh("user")) == pb.GetHistoryResponse()


async def test_a_visit_without_a_user_is_kept_and_is_nobodys_history(client: Client) -> None:
    visit = fresh("visit")
    sent = event(user_id="", session_id=visit)
    assert (await client.write(sent)).accepted == 1
    assert await client.history(visit) == pb.GetHistoryResponse()
    (logged,) = [logged for logged in await client.log() if logged.event.id == sent.id]
    assert (logged.user_key, len(logged.session_key)) == (b"", 16)


async def test_an_event_is_tied_to_the_response_that_led_to_it(client: Client) -> None:
    told = Attribution(request_id="r-1", surface="SEARCH", query="lamp", experiment_arm="b", candidate_count=40)
    token = TOKENS.issue(told, ["x", "y"], first_position=10)
    user = fresh("user")
    sent = [event(CLICK, user_id=user, item_id=item, attribution_token=token) for item in ("y", "elsewhere")]
    forged = event(CLICK, user_id=user, attribution_token=AttributionTokens(b"forger").issue(told, ["a"]))
    assert await client.write(*sent, forged) == pb.WriteEventsResponse(accepted=3, unattributed=1)
    kept = {past.id: past for past in (await client.history(user)).events}
    tied = kept[sent[0].id].attribution
    assert (tied.request_id, tied.surface, tied.query, tied.experiment_arm) == ("r-1", "SEARCH", "lamp", "b")
    assert (tied.position, tied.candidate_count) == (11, 40)
    assert not kept[sent[1].id].attribution.HasField("position")
    assert kept[sent[1].id].attribution.request_id == "r-1"
    assert not kept[forged.id].HasField("attribution")


async def test_what_is_personal_in_a_query_is_not_kept(client: Client, database_bytes: DatabaseBytes) -> None:
    told = Attribution(surface="SEARCH", query="gift for joe.bloggs@example.org")
    user = fresh("user")
    await client.write(
        event(SEARCH, user_id=user, query="gift for joe.bloggs@example.org", attribution_token=TOKENS.issue(told, []))
    )
    (past,) = (await client.history(user)).events
    assert past.query == past.attribution.query == "gift for"
    assert b"joe.bloggs" not in database_bytes.read()


async def test_personal_properties_are_dropped_where_the_policy_says_so(settings: UserEventsSettings) -> None:
    other = await Store.open(settings.model_copy(update={"pii_policy": "drop"}))
    try:
        client = Client(other)
        sent = event(properties={"contact": "+49 151 23456789", "device": "phone"})
        assert (await client.write(sent)).accepted == 1
        (kept,) = await client.export(sent.user_id)
        assert dict(kept.properties) == {"device": "phone"}
    finally:
        await other.close()


async def test_stats_count_what_was_done_in_the_window(client: Client) -> None:
    item = fresh("item")
    for kind, hours, times in ((VIEW, 1, 3), (VIEW, 50, 2), (CLICK, 1, 1), (CART, 1, 1), (PURCHASE, 30 * 24 + 2, 4)):
        await client.write(*(event(kind, item_id=item, occurred_at=ago(hours=hours)) for _ in range(times)))
    await client.write(event(IMPRESSION, item_ids=[item, fresh()], sampled_one_in=20))
    day, month = await client.stats(item, item, window=duration_pb2.Duration(seconds=86_400))
    assert day == month
    assert (day.impressions, day.views, day.clicks, day.carts, day.purchases) == (20, 3, 1, 1, 0)
    (month,) = await client.stats(item)
    assert (month.views, month.purchases) == (5, 0)
    (year,) = await client.stats(item, window=duration_pb2.Duration(seconds=365 * 86_400))
    assert year.purchases == 4


async def test_a_click_through_rate_is_smoothed_towards_the_shops(client: Client) -> None:
    seen, unseen = fresh("item"), fresh("item")
    await client.write(event(IMPRESSION, item_ids=[seen], sampled_one_in=30), *[event(CLICK, item_id=seen)] * 1)
    rates = {stats.item_id: stats.click_through_rate for stats in await client.stats(seen, unseen)}
    shop = rates[unseen]
    assert 0 < shop < 1
    assert rates[seen] == pytest.approx((1 + 20 * shop) / (30 + 20))


async def test_popular_items_come_by_weight_and_time(client: Client) -> None:
    bought, viewed, old, returned = (fresh(kind) for kind in ("bought", "viewed", "old", "returned"))
    await client.write(
        *(event(PURCHASE, item_id=bought) for _ in range(30)),
        *(event(VIEW, item_id=viewed) for _ in range(100)),
        *(event(VIEW, item_id=old, occurred_at=ago(days=7.2)) for _ in range(100)),
        *(event(kind, item_id=returned) for kind in (PURCHASE, RETURN)),
        event(VIEW, item_id=viewed, occurred_at=ago(hours=-20)),
    )
    scores = {item.item_id: item.score for item in await client.popular(limit=1000)}
    assert scores[bought] == pytest.approx(120)
    assert scores[viewed] == pytest.approx(101)
    assert scores[old] == pytest.approx(50, rel=1e-3)
    assert returned not in scores
    ranked = [item.item_id for item in await client.popular(limit=1000)]
    assert [item for item in ranked if item in {bought, viewed, old}] == [bought, viewed, old]
    assert [item.item_id for item in await client.popular(limit=2)] == ranked[:2] == [bought, viewed]
    recent = await client.popular(window=duration_pb2.Duration(seconds=7 * 86_400))
    assert old not in {item.item_id for item in recent}


async def test_the_log_is_by_arrival_and_goes_on_from_a_cursor(client: Client) -> None:
    start = await client.end()
    sent = [event(VIEW if at % 3 else SEARCH, occurred_at=ago(minutes=at)) for at in range(1_200)]
    for at in range(0, len(sent), 400):
        await client.write(*sent[at : at + 400])
    pages = await client.pages(cursor=start)
    assert [len(page.events) for page in pages] == [500, 500, 200]
    seen = [logged.event.id for page in pages for logged in page.events]
    assert sorted(seen) == sorted(one.id for one in sent)
    again = await client.pages(cursor=pages[0].cursor)
    assert [logged.event.id for page in again for logged in page.events] == seen[500:]
    # At its end there is nothing, until there is something.
    assert await client.pages(cursor=pages[-1].cursor) == []
    late = event()
    await client.write(late)
    assert [logged.event.id for logged in await client.log(cursor=pages[-1].cursor)] == [late.id]


async def test_the_log_can_be_asked_for_types_and_times(client: Client) -> None:
    start = await client.end()
    await client.write(
        *(event(kind, item_id=f"{hours}", occurred_at=ago(hours=hours)) for kind in (VIEW, CART) for hours in (1, 5, 9))
    )
    found = await client.log(cursor=start, types=[CART], since=ago(hours=6), before=ago(hours=2))
    assert [(logged.event.type, logged.event.item_id) for logged in found] == [(CART, "5")]


async def test_a_log_of_what_is_rare_is_looked_through_in_stretches_each_with_a_cursor(
    client: Client, looked_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_LOOKED_AT", 10)
    start = await client.end()
    rare = [event(CART) for _ in range(4)]
    for one in rare[:3]:
        await client.write(*(event() for _ in range(25)), one)
    await client.write(rare[3], *(event() for _ in range(25)))
    looked_at.clear()
    pages = await client.pages(cursor=start, types=[CART])
    assert max(looked_at) == 10
    assert [logged.event.id for page in pages for logged in page.events] == [one.id for one in rare]
    # Whoever is cut off goes on behind what was looked at, found or not.
    for at, page in enumerate(pages):
        rest = await client.pages(cursor=page.cursor, types=[CART])
        assert rest == pages[at + 1 :]
    assert sum(not page.events for page in pages) > 5


@pytest.mark.parametrize("cursor", ["x", "AQ==", "AgAAAAAAAAAB", "ünïcode", "AQAAAAAAAAAB AQ"])
async def test_a_cursor_that_is_none_is_refused(client: Client, cursor: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cursor"):
        await client.pages(cursor=cursor)


async def test_an_export_is_all_of_a_user_by_time_in_pages(client: Client) -> None:
    user = fresh("user")
    for _ in range(3):
        await client.write(*(event(user_id=user, occurred_at=ago(minutes=at)) for at in range(400)))
    exported = await client.export(user)
    times = [logged.event.occurred_at.ToMicroseconds() for logged in exported]
    assert len({logged.event.id for logged in exported}) == 1_200
    assert times == sorted(times)
    assert await client.export(fresh("user")) == []


async def test_a_reader_of_the_log_learns_who_is_still_known_and_since_when(client: Client) -> None:
    stays, returns, leaves = (fresh("user") for _ in range(3))
    start = await client.end()
    for user in (stays, returns, leaves, returns):
        await client.write(event(user_id=user))
    before = await client.log(cursor=start)
    keys = [logged.user_key for logged in before[:3]]
    first = [pb.KnownUser(since=logged.arrived_at) for logged in before[:3]]
    assert await client.known_since(*keys, keys[0]) == [*first, first[0]]
    await client.forget(returns)
    await client.forget(leaves)
    await client.write(event(user_id=returns))
    *_, again = await client.log(cursor=start)
    assert await client.known_since(*keys) == [first[0], pb.KnownUser(since=again.arrived_at), pb.KnownUser()]
    assert again.arrived_at.ToMicroseconds() > before[-1].arrived_at.ToMicroseconds()


async def test_no_id_of_a_user_or_a_visit_is_kept(client: Client, database_bytes: DatabaseBytes) -> None:
    user, visit = fresh("user"), fresh("visit")
    sent = event(user_id=user, session_id=visit)
    await client.write(sent)
    held = database_bytes.read()
    assert sent.id.encode() in held
    assert user.encode() not in held
    assert visit.encode() not in held


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda client: client.history(""), "user_id"),
        (lambda client: client.history("u" * 257), "user_id"),
        (lambda client: client.history("u", limit=1001), "limit"),
        (lambda client: client.history("u", types=[99]), "types"),
        (lambda client: client.stats(), "item_ids"),
        (lambda client: client.stats("a", "b\0"), "item_ids[1]"),
        (lambda client: client.stats("a", window=duration_pb2.Duration(seconds=401 * 86_400)), "window"),
        (lambda client: client.stats("a", window=duration_pb2.Duration(seconds=-1)), "window"),
        (lambda client: client.popular(limit=1001), "limit"),
        (lambda client: client.related({}), "items"),
        (lambda client: client.related({"a": 0.0}), "items[0].weight"),
        (lambda client: client.related({"a": float("nan")}), "items[0].weight"),
        (lambda client: client.export(""), "user_id"),
        (lambda client: client.known_since(), "user_keys"),
        (lambda client: client.known_since(*[b"k" * 16] * 1001), "user_keys"),
        (lambda client: client.known_since(b"k" * 16, b"k"), "user_keys[1]"),
        (lambda client: client.forget(""), "user_id"),
    ],
)
async def test_a_bad_argument_is_named(client: Client, call: object, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await call(client)  # type: ignore[operator]
    assert [violation.field for violation in refused.value.violations] == [field]
