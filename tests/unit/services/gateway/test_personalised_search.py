from typing import Any

import pytest

from services.gateway.answers import Answer, PageRequest, Reason
from services.gateway.paging import PageTokens
from services.gateway.ports import EventType
from services.gateway.search import Searcher, Shopper
from shared.errors import InvalidArgumentError, UnavailableError
from tests.unit.services.gateway.fakes import FakeReranker, policy
from tests.unit.services.gateway.shop import Shop, Thing, shoppers


def shop() -> Shop:
    """To the query, all the same; to a user, not."""
    found = Shop({"a": Thing([1.0, 0.0, 0.1]), "b": Thing([1.0, 0.1, 0.0]), "c": Thing([1.0, 0.0, 0.0])})
    found.things["liked"] = Thing([0.0, 1.0, 0.0])
    found.did("u", EventType.PURCHASE, "liked")
    return found


async def search(index: Shop, shopper: Shopper, *, rerank_count: int = 0, **changes: Any) -> Answer:
    searcher = Searcher(
        index,
        index,
        FakeReranker(score_of=lambda at: float(-at)),
        shoppers(index),
        PageTokens(b"key"),
        policy(rerank_count=rerank_count, **changes),
        remaining_s=lambda: 5.0,
    )
    return await searcher.search("anything", PageRequest(fingerprint=b"list", filter_={"a", "b", "c"}), shopper)


def ids(answer: Answer) -> list[str]:
    return [ranked.candidate.item_id for ranked in answer.results]


async def test_a_history_moves_what_the_user_likes_up_and_says_by_how_much() -> None:
    plain = await search(shop(), Shopper())
    assert ids(plain)[0] == "c"
    assert plain.results[0].personalization is None
    personal = await search(shop(), Shopper("u", 0.6))
    assert ids(personal)[0] == "b"
    best = personal.results[0]
    assert best.personalization is not None
    assert best.personalization > 0
    assert best.user_score == pytest.approx(0.0995, abs=1e-3)
    assert personal.results[-1].personalization == pytest.approx(
        personal.results[-1].score - plain.results[ids(plain).index(ids(personal)[-1])].score, abs=1.0
    )


@pytest.mark.parametrize("shopper", [Shopper("u", 0.0), Shopper("stranger", 1.0), Shopper("", 1.0)])
async def test_no_weight_no_history_no_user_no_difference(shopper: Shopper) -> None:
    index = shop()
    assert ids(await search(index, shopper)) == ids(await search(shop(), Shopper()))
    if not shopper.weight or not shopper.user_id:
        assert "history" not in index.calls


async def test_the_default_weight_is_the_policys() -> None:
    assert ids(await search(shop(), Shopper("u"), personalization_weight=0.0))[0] == "c"
    assert ids(await search(shop(), Shopper("u"), personalization_weight=0.9))[0] == "b"


async def test_what_the_reranker_did_not_score_stays_below() -> None:
    answer = await search(shop(), Shopper("u", 1.0), rerank_count=2)
    scored = [ranked.rerank_score is not None for ranked in answer.results]
    assert scored == sorted(scored, reverse=True)


@pytest.mark.parametrize("part", ["log", "encoder"])
async def test_without_the_log_or_the_vector_it_is_the_same_for_everybody(part: str) -> None:
    index = shop()
    if part == "log":
        index.down = {"log"}
    else:

        async def fails(*args: Any, **kwargs: Any) -> Any:
            raise UnavailableError("query_encoder")

        index.encode_users = fails  # type: ignore[method-assign]
    answer = await search(index, Shopper("u", 0.9))
    assert ids(answer) == ids(await search(shop(), Shopper()))
    assert [one.reason for one in answer.degraded] == [Reason.PERSONALIZATION_UNAVAILABLE]
    assert "u" not in answer.degraded[0].message.split()


async def test_a_user_of_another_model_has_no_say_and_is_read_anew_for_the_next_search() -> None:
    index = shop()
    kept = shoppers(index)
    assert await kept.profile("u", None, lambda: 1.0)
    searcher = Searcher(
        index, index, FakeReranker(), kept, PageTokens(b"key"), policy(rerank_count=0), remaining_s=lambda: 5.0
    )
    index.version = "v2"
    answer = await searcher.search("anything", PageRequest(fingerprint=b"list"), Shopper("u", 0.9))
    assert [one.reason for one in answer.degraded] == [Reason.PERSONALIZATION_UNAVAILABLE]
    again = await searcher.search("anything", PageRequest(fingerprint=b"list"), Shopper("u", 0.9))
    assert not again.degraded


async def test_every_violation_at_once() -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await search(shop(), Shopper("u" * 257, 1.5))
    assert [v.field for v in refused.value.violations] == ["user_id", "personalization_weight"]
