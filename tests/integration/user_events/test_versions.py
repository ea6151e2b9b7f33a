"""A history's version, by which whoever keeps one knows that it is still the same, on both databases."""

import pytest
from aisle.events.v1 import user_events_pb2 as pb

from tests.integration.user_events.client import CART, CLICK, IMPRESSION, PURCHASE, SEARCH, VIEW, Client, event, fresh

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_impression_leaves_a_history_unchanged_and_a_view_with_it_does_not(client: Client) -> None:
    user, telling = fresh("user"), [SEARCH, VIEW, CLICK, CART, PURCHASE]
    await client.write(event(user_id=user))
    before = await client.history(user, types=telling)
    await client.write(event(IMPRESSION, user_id=user), event())
    for types in (telling, []):
        again = await client.history(user, types=types, known_version=before.version)
        assert again == pb.GetHistoryResponse(version=before.version, unchanged=True)
    await client.write(event(user_id=user), event(IMPRESSION, user_id=user))
    after = await client.history(user, types=telling, known_version=before.version)
    assert after.version > before.version
    assert len(after.events) == 2


async def test_a_history_with_impressions_is_never_unchanged(client: Client) -> None:
    user = fresh("user")
    await client.write(event(user_id=user))
    before = await client.history(user, types=[IMPRESSION, VIEW])
    await client.write(event(IMPRESSION, user_id=user))
    after = await client.history(user, types=[IMPRESSION, VIEW], known_version=before.version)
    assert not after.unchanged
    assert {past.type for past in after.events} == {IMPRESSION, VIEW}


async def test_a_user_whose_first_event_is_an_impression_has_a_version_and_can_be_forgotten(client: Client) -> None:
    user = fresh("user")
    await client.write(event(IMPRESSION, user_id=user))
    first = await client.history(user)
    assert (first.version > 0, len(first.events)) == (True, 0)
    await client.write(event(IMPRESSION, user_id=user))
    assert await client.history(user, known_version=first.version) == pb.GetHistoryResponse(
        version=first.version, unchanged=True
    )
    assert (await client.forget(user)).events == 2
    assert await client.history(user) == pb.GetHistoryResponse()
