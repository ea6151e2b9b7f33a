from typing import Any

import pytest

from services.gateway.answers import Answer, PageRequest, Reason
from services.gateway.asks import Ask, Context
from services.gateway.blending import Weights
from services.gateway.budgets import StageBudget
from services.gateway.paging import PageTokens
from services.gateway.ports import EventType, UserModel
from services.gateway.recommend import Recommender, RecommendPolicy
from services.gateway.shoppers import Shoppers
from services.gateway.sources import Sources
from shared.errors import InvalidArgumentError, NotFoundError, UnavailableError
from tests.unit.services.gateway.shop import Shop, Thing, shoppers

WEIGHTS = {
    Context.HOME: Weights(likeness=0.3, related=0.6, popularity=0.1),
    Context.SIMILAR_ITEMS: Weights(likeness=0.7, related=0.3, user=0.1),
    Context.BASKET: Weights(likeness=0.2, related=0.8, user=0.1),
    Context.AFTER_SEARCH: Weights(likeness=1.0, related=0.1, user=0.1),
}


def garden() -> Shop:
    """Lamps lie along x, pots along y, rakes along z."""
    return Shop(
        {
            "lamp-1": Thing([1.0, 0.1, 0.0], "lamps-a", 5),
            "lamp-2": Thing([1.0, 0.2, 0.0], "lamps-a", 1),
            "lamp-3": Thing([1.0, 0.3, 0.1], "", 2),
            "pot-1": Thing([0.1, 1.0, 0.0], "", 9),
            "pot-2": Thing([0.2, 1.0, 0.1], "", 3),
            "rake-1": Thing([0.0, 0.1, 1.0], "", 7),
            "rake-2": Thing([0.1, 0.0, 1.0], "", 4),
        }
    )


async def recommend(
    shop: Shop,
    *,
    policy: dict[str, Any] | None = None,
    page: Any = None,
    readers: Shoppers | None = None,
    **ask: Any,
) -> Answer:
    budget = StageBudget(1.0)
    recommender = Recommender(
        shoppers=readers or shoppers(shop),
        sources=Sources(retrieval=shop, events=shop, popular_count=5, popular_window_s=1.0),
        retrieval=shop,
        encoder=shop,
        events=shop,
        tokens=PageTokens(b"key"),
        policy=RecommendPolicy(
            **{
                "candidate_count": 40,
                "weights": WEIGHTS,
                "diversity": 0.0,
                "exploration_share": 0.0,
                "history": budget,
                "encode": budget,
                "lookup": budget,
                "retrieve": budget,
                **(policy or {}),
            }
        ),
        remaining_s=lambda: 5.0,
    )
    wanted = Ask(**{"context": Context.HOME, **ask})
    return await recommender.recommend(wanted, PageRequest(**{"fingerprint": b"list", **(page or {})}))


def ids(answer: Answer) -> list[str]:
    return [result.candidate.item_id for result in answer.results]


def reasons(answer: Answer) -> list[Reason]:
    return [one.reason for one in answer.degraded]


async def test_what_the_user_did_decides() -> None:
    shop = garden()
    shop.did("u", EventType.VIEW, "rake-1")
    answer = await recommend(shop, user_id="u", exclude_seen=True)
    assert ids(answer)[0] == "rake-2"
    assert "rake-1" not in ids(answer)
    assert reasons(answer) == []
    assert answer.versions.query_encoder == answer.versions.index == "v1"


async def test_a_profile_of_a_model_that_the_index_no_longer_knows_is_read_anew() -> None:
    shop = garden()
    shop.did("u", EventType.VIEW, "rake-1")
    shop.relations = {"rake-1": {"pot-2": 1.0}}
    kept = shoppers(shop)
    await recommend(shop, readers=kept, user_id="u", exclude_seen=True)
    shop.version = "v2"
    between = await recommend(shop, readers=kept, user_id="u", exclude_seen=True)
    assert ids(between)[0] == "pot-2"
    assert reasons(between) == [Reason.PERSONALIZATION_UNAVAILABLE]
    after = await recommend(shop, readers=kept, user_id="u", exclude_seen=True)
    assert reasons(after) == []
    assert after.versions.query_encoder == after.versions.index == "v2"


@pytest.mark.parametrize(
    "ask",
    [
        {"context": Context.SIMILAR_ITEMS, "item_ids": ["lamp-1"]},
        {"context": Context.BASKET, "item_ids": ["lamp-1", "pot-1"]},
        {"context": Context.AFTER_SEARCH, "query": "lamp-1"},
    ],
)
async def test_a_profile_of_another_model_is_read_anew_beside_items_and_queries_too(ask: dict[str, Any]) -> None:
    shop = garden()
    shop.did("u", EventType.VIEW, "rake-1")
    kept = shoppers(shop)
    await recommend(shop, readers=kept, user_id="u", **ask)
    shop.version = "v2"
    between = await recommend(shop, readers=kept, user_id="u", **ask)
    assert reasons(between) == [Reason.PERSONALIZATION_UNAVAILABLE]
    after = await recommend(shop, readers=kept, user_id="u", **ask)
    assert reasons(after) == []
    assert all(result.user_score is not None for result in after.results)


async def test_the_last_event_changes_the_next_answer() -> None:
    shop = garden()
    shop.did("u", EventType.VIEW, "rake-1", at_s=1)
    before = await recommend(shop, user_id="u", exclude_seen=True)
    shop.did("u", EventType.PURCHASE, "pot-1", at_s=2)
    shop.did("u", EventType.PURCHASE, "pot-1", at_s=3)
    after = await recommend(shop, user_id="u", exclude_seen=True, exclude_purchased=True)
    assert ids(before)[0] == "rake-2"
    assert ids(after)[0] == "pot-2"


async def test_a_variant_of_what_was_bought_is_not_shown_either() -> None:
    shop = garden()
    shop.did("u", EventType.PURCHASE, "lamp-1")
    answer = await recommend(shop, user_id="u", exclude_purchased=True)
    assert ids(answer)[0] == "lamp-3"
    assert "lamp-2" not in ids(answer)
    assert "lamp-2" in ids(await recommend(shop, user_id="u", page={"filter_": {"lamp-2"}}))


async def test_what_others_took_together_counts_and_reaches_what_no_vector_would() -> None:
    shop = garden()
    shop.did("u", EventType.VIEW, "lamp-1")
    shop.relations = {"lamp-1": {"rake-2": 1.0}}
    answer = await recommend(shop, user_id="u", page={"candidate_count": 2})
    assert ids(answer)[0] == "rake-2"
    assert answer.results[0].related_score == 1.0
    assert answer.results[0].personalization == pytest.approx(answer.results[0].score)


@pytest.mark.parametrize("user", ["", "nobody-yet"])
async def test_a_shopper_nobody_knows_gets_what_is_popular_and_it_says_so(user: str) -> None:
    shop = garden()
    shop.popularity = {"pot-2": 3.0, "lamp-3": 2.0}
    answer = await recommend(shop, user_id=user)
    assert ids(answer) == ["pot-2", "lamp-3"]
    assert reasons(answer) == [Reason.COLD_START]
    assert [r.popularity_score for r in answer.results] == [1.0, pytest.approx(2 / 3)]


async def test_a_new_shop_goes_by_its_catalogue() -> None:
    answer = await recommend(garden(), page={"page_size": 3})
    assert ids(answer) == ["pot-1", "rake-1", "lamp-1"]
    assert reasons(answer) == [Reason.COLD_START]


async def test_popular_items_that_the_filter_keeps_out_give_way_to_others() -> None:
    shop = garden()
    shop.popularity = {"pot-2": 3.0}
    assert ids(await recommend(shop, page={"filter_": {"lamp-2", "lamp-3"}})) == ["lamp-3", "lamp-2"]


async def test_without_the_log_everybody_is_a_stranger() -> None:
    shop = garden()
    shop.did("u", EventType.VIEW, "rake-1")
    shop.down = {"log"}
    answer = await recommend(shop, user_id="u")
    assert ids(answer)[0] == "pot-1"
    assert Reason.PERSONALIZATION_UNAVAILABLE in reasons(answer)


async def test_without_the_encoder_what_others_took_is_left() -> None:
    shop = garden()
    shop.did("u", EventType.VIEW, "lamp-1")
    shop.relations = {"lamp-1": {"rake-2": 1.0}}
    shop.down = {"encoder"}
    answer = await recommend(shop, user_id="u")
    assert ids(answer) == ["rake-2"]
    assert reasons(answer) == [Reason.PERSONALIZATION_UNAVAILABLE]


async def test_without_the_index_there_is_nothing() -> None:
    shop = garden()
    shop.down = {"index"}
    with pytest.raises(UnavailableError):
        await recommend(shop)


async def test_similar_items_are_none_of_the_items_own_variants() -> None:
    answer = await recommend(garden(), context=Context.SIMILAR_ITEMS, item_ids=["lamp-1"])
    assert ids(answer)[0] == "lamp-3"
    assert not {"lamp-1", "lamp-2"} & set(ids(answer))
    assert reasons(answer) == []


@pytest.mark.parametrize(
    "ask",
    [
        {"context": Context.SIMILAR_ITEMS, "item_ids": ["lamp-1"]},
        {"context": Context.BASKET, "item_ids": ["lamp-1"]},
        {"user_id": "u", "exclude_purchased": True},
    ],
)
async def test_a_product_of_more_variants_than_candidates_leaves_places_for_others(ask: dict[str, Any]) -> None:
    shop = garden()
    shop.things |= {f"lamp-a-{at}": Thing([1.0, 0.1, at / 1000], "lamps-a") for at in range(60)}
    shop.did("u", EventType.PURCHASE, "lamp-1")
    answer = await recommend(shop, **ask)
    assert set(ids(answer)) == {"lamp-3", "pot-1", "pot-2", "rake-1", "rake-2"}


async def test_similar_items_lean_towards_the_user() -> None:
    shop = garden()
    shop.things["pot-lamp"] = Thing([0.8, 0.6, 0.0])
    shop.things["rake-lamp"] = Thing([0.8, 0.0, 0.6])
    shop.did("u", EventType.VIEW, "rake-1")
    ask = {"context": Context.SIMILAR_ITEMS, "item_ids": ["lamp-1"], "page": {"filter_": {"pot-lamp", "rake-lamp"}}}
    assert ids(await recommend(shop, **ask)) == ["pot-lamp", "rake-lamp"]
    leaning = await recommend(
        shop, user_id="u", policy={"weights": {Context.SIMILAR_ITEMS: Weights(1, 0, 0, 1)}}, **ask
    )
    assert ids(leaning) == ["rake-lamp", "pot-lamp"]
    assert leaning.results[0].user_score == pytest.approx(0.6, abs=0.1)


async def test_an_item_nobody_has() -> None:
    with pytest.raises(NotFoundError):
        await recommend(garden(), context=Context.SIMILAR_ITEMS, item_ids=["gone"])


async def test_a_basket_is_completed_not_repeated() -> None:
    shop = garden()
    shop.relations = {"pot-1": {"rake-1": 2.0, "pot-2": 0.5}, "gone": {"rake-2": 1.0}}
    answer = await recommend(shop, context=Context.BASKET, item_ids=["pot-1", "gone", "pot-1"])
    assert ids(answer)[:2] == ["rake-1", "rake-2"]
    assert "pot-1" not in ids(answer)


async def test_a_basket_of_unknown_items_is_a_cold_start() -> None:
    answer = await recommend(garden(), context=Context.BASKET, item_ids=["gone"])
    assert ids(answer)[0] == "pot-1"
    assert reasons(answer) == [Reason.COLD_START]


async def test_after_a_search_the_query_leads() -> None:
    answer = await recommend(garden(), context=Context.AFTER_SEARCH, query=" pot-1 ")
    assert ids(answer)[:2] == ["pot-1", "pot-2"]
    shop = garden()
    shop.down = {"encoder"}
    assert reasons(await recommend(shop, context=Context.AFTER_SEARCH, query="pot-1")) == [
        Reason.QUERY_ENCODER_UNAVAILABLE
    ]


async def test_diversity_spreads_the_first_places() -> None:
    shop = garden()
    ask = {"context": Context.SIMILAR_ITEMS, "item_ids": ["pot-1"], "page": {"page_size": 3}}
    plain = await recommend(shop, **ask)
    assert {item_id.split("-")[0] for item_id in ids(plain)} == {"pot", "lamp"}
    spread = await recommend(shop, diversity=0.7, **ask)
    assert {item_id.split("-")[0] for item_id in ids(spread)} == {"pot", "lamp", "rake"}
    assert ids(plain)[0] == ids(spread)[0] == "pot-2"


async def test_a_share_of_places_is_kept_for_items_nobody_has_seen() -> None:
    shop = garden()
    shop.seen = {name: 10 for name in shop.things if name != "rake-2"}
    shop.did("u", EventType.VIEW, "lamp-1")
    places = ids(await recommend(shop, user_id="u")).index("rake-2")
    explored = await recommend(shop, user_id="u", policy={"exploration_share": 0.5})
    assert places > 1
    assert ids(explored)[1] == "rake-2"
    assert [r.exploration for r in explored.results[:3]] == [False, True, False]


async def test_pages_show_everything_once() -> None:
    shop = garden()
    shop.did("u", EventType.VIEW, "lamp-1")
    shown: list[str] = []
    token = ""
    while True:
        answer = await recommend(shop, user_id="u", page={"page_size": 2, "page_token": token})
        assert answer.first_position == len(shown)
        shown += ids(answer)
        shop.did("u", EventType.VIEW, "pot-1")
        token = answer.next_page_token
        if not token:
            break
    assert len(shown) == len(set(shown)) == 6  # Of the two variants of one lamp, one.


async def test_the_model_is_the_callers_choice() -> None:
    shop = garden()
    shop.did("u", EventType.VIEW, "lamp-1")
    answer = await recommend(shop, user_id="u", user_model=UserModel.TEXT)
    assert answer.results


async def test_every_violation_at_once() -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await recommend(
            garden(),
            context=Context.BASKET,
            item_ids=["a", " "],
            query="lamp",
            user_id="u" * 257,
            diversity=1.5,
            page={"page_size": 101},
        )
    assert [v.field for v in refused.value.violations] == [
        "user_id",
        "item_ids[1]",
        "query",
        "diversity",
        "page_size",
    ]
    for wrong, field in (
        ({"item_ids": ["a"]}, "item_ids"),
        ({"context": Context.SIMILAR_ITEMS, "item_ids": ["a", "b"]}, "item_ids"),
        ({"context": Context.AFTER_SEARCH, "query": " "}, "query"),
        ({"exclude_seen": True}, "user_id"),
        ({"diversity": float("nan")}, "diversity"),
    ):
        with pytest.raises(InvalidArgumentError) as refused:
            await recommend(garden(), **wrong)
        assert [v.field for v in refused.value.violations] == [field]
