"""Pages of one list, while the shop behind it is written to between them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.answers import Answer, PageRequest
from services.gateway.budgets import StageBudget
from services.gateway.paging import PageTokens
from services.gateway.ports import Candidate, Found, Stored
from services.gateway.search import Searcher
from services.gateway.similar import SimilarFinder, SimilarPolicy
from services.gateway.validation import MAX_CANDIDATES
from tests.unit.services.gateway.fakes import FakeClock, FakeQueryEncoder, FakeReranker, FakeRetrieval, policy, vectors
from tests.unit.services.gateway.shop import strangers

CANDIDATES = 30
SEARCHES = st.sampled_from(["search", "similar"])


@dataclass
class Shop(FakeRetrieval):
    """Items by id, each with its score for the one query there is, and its group."""

    items: dict[str, tuple[float, str]] = field(default_factory=dict)
    stored: Any = field(default_factory=lambda: Stored("item", "", vectors()))

    async def search(self, *, limit: int, exclude: Sequence[str] = (), **options: Any) -> Found:
        self.searches.append({"limit": limit})
        best = sorted((-score, name, group) for name, (score, group) in self.items.items() if name not in exclude)
        return Found([Candidate(name, name, -score, group_id=group) for score, name, group in best[:limit]], "g", "v1")

    async def get(self, item_id: str, *, with_vector: bool, timeout_s: float) -> Stored | None:
        assert isinstance(self.stored, Stored)
        return self.stored


class Writer:
    """Changes a shop at random, and remembers what it changed."""

    def __init__(self, shop: Shop, random: Random) -> None:
        self.shop = shop
        self.random = random
        self.touched: set[str] = set()
        self.joined: set[str] = set()
        """Groups that an item of the list has come into, where it may stand for the others now."""
        self.added = 0

    def add(self) -> None:
        self.added += 1
        # Above all others, as new arrivals are where it hurts.
        self.shop.items[f"new-{self.added}"] = (self.random.random() + self.random.choice([0, 1]), self.group())

    def change(self) -> None:
        name = self.some()
        self.touched.add(name)
        self.shop.items[name] = (self.random.random(), self.group())
        self.joined.add(self.shop.items[name][1])

    def remove(self) -> None:
        name = self.some()
        self.touched.add(name)
        del self.shop.items[name]

    def some(self) -> str:
        return self.random.choice(sorted(self.shop.items))

    def group(self) -> str:
        return self.random.choice(["", "", f"group-{self.random.randrange(20)}"])

    def write(self, writes: int) -> None:
        for _ in range(writes):
            self.random.choice([self.add, self.change, self.remove] if len(self.shop.items) > 1 else [self.add])()


def asking(what: str, shop: Shop) -> Callable[[PageRequest], Any]:
    tokens = PageTokens(b"key")
    if what == "similar":
        rules = SimilarPolicy(candidate_count=CANDIDATES, lookup=StageBudget(1.0, 0.4), retrieve=StageBudget(3.0, 0.7))
        finder = SimilarFinder(shop, tokens, rules, remaining_s=lambda: 1.0, clock=FakeClock())
        return lambda page: finder.similar("itself", page)
    # A re-ranker whose mind changes with what else it is shown.
    reranker = FakeReranker(score_of=lambda at: float(at * 7 % 5))
    searcher = Searcher(
        FakeQueryEncoder(),
        shop,
        reranker,
        strangers(),
        tokens,
        policy(candidate_count=CANDIDATES, rerank_weights={"late-interaction": 0.5}),
        remaining_s=lambda: 1.0,
        clock=FakeClock(),
    )
    return lambda page: searcher.search("bed", page)


def names(answer: Answer) -> list[str]:
    return [str(ranked.candidate.item) for ranked in answer.results]


def shop_of(count: int, random: Random) -> tuple[Shop, Writer]:
    shop = Shop()
    writer = Writer(shop, random)
    shop.items = {f"item-{at:03}": (random.random(), writer.group()) for at in range(count)}
    return shop, writer


async def read(
    ask: Callable[[PageRequest], Any], between: Callable[[], None], sizes: Callable[[], int]
) -> list[tuple[list[str], Answer]]:
    """Every page, with `between` called before each but the first."""
    pages, token = [], ""
    while True:
        answer = await ask(PageRequest(fingerprint=b"list", page_size=sizes(), page_token=token))
        pages.append((names(answer), answer))
        token = answer.next_page_token
        if not token:
            return pages
        between()


@settings(deadline=None)
@given(SEARCHES, st.integers(0, 60), st.integers(0, 12), st.integers())
def test_whatever_is_written_between_pages_nothing_is_shown_twice_or_passed_over(
    what: str, count: int, writes: int, seed: int
) -> None:
    shop, writer = shop_of(count, Random(seed))
    ask = asking(what, shop)
    (whole, _), *_ = asyncio.run(read(ask, lambda: None, lambda: 100))
    there_at: list[set[str]] = [set(shop.items)]

    def between() -> None:
        writer.write(writes)
        there_at.append(set(shop.items))

    pages = asyncio.run(read(ask, between, lambda: writer.random.randint(1, 10)))
    shown = [name for page, _ in pages for name in page]
    assert len(shown) == len(set(shown))
    assert set(shown) <= set(whole)
    passed_over = set(whole) - set(shown) - writer.touched
    assert {shop.items[name][1] for name in passed_over} <= writer.joined - {""}
    for (page, answer), there in zip(pages, there_at, strict=True):
        assert there.issuperset(page)
        scores = [ranked.score for ranked in answer.results]
        assert scores == sorted(scores, reverse=True)


@settings(deadline=None)
@given(SEARCHES, st.integers(0, 60), st.integers(1, 12), st.integers())
def test_the_pages_of_a_quiet_shop_are_its_list(what: str, count: int, size: int, seed: int) -> None:
    shop, _ = shop_of(count, Random(seed))
    ask = asking(what, shop)
    ((whole, _),) = asyncio.run(read(ask, lambda: None, lambda: 100))
    shop.searches.clear()
    pages = asyncio.run(read(ask, lambda: None, lambda: size))
    assert [name for page, _ in pages for name in page] == whole
    assert {answer.candidate_count for _, answer in pages} == {len(whole)}
    assert [search["limit"] for search in shop.searches] == [CANDIDATES] * len(pages)


async def test_a_list_is_looked_for_further_down_where_new_items_stand_before_it() -> None:
    shop, writer = shop_of(CANDIDATES, Random(0))
    ask = asking("search", shop)
    first = await ask(PageRequest(fingerprint=b"list"))
    before = set(shop.items)
    while set(names(await ask(PageRequest(fingerprint=b"list", page_size=100)))) & before:
        writer.add()
    shop.searches.clear()
    second = await ask(PageRequest(fingerprint=b"list", page_size=100, page_token=first.next_page_token))
    assert sorted(names(first) + names(second)) == sorted(before)
    assert [search["limit"] for search in shop.searches] == [CANDIDATES, MAX_CANDIDATES]
    assert second.candidate_count == CANDIDATES


async def test_what_is_not_found_for_a_while_is_shown_later() -> None:
    """Without its encoder a search finds by words alone, and not every item of a list has them."""
    shop, _ = shop_of(20, Random(0))
    ask = asking("search", shop)
    first = await ask(PageRequest(fingerprint=b"list", page_size=5))
    hidden = {name: shop.items.pop(name) for name in set(shop.items) - set(names(first)) if name.endswith("1")}
    assert hidden
    second = await ask(PageRequest(fingerprint=b"list", page_size=5, page_token=first.next_page_token))
    shop.items |= hidden
    third = await ask(PageRequest(fingerprint=b"list", page_size=100, page_token=second.next_page_token))
    assert sorted(names(first) + names(second) + names(third)) == sorted(shop.items)
    assert third.next_page_token == ""
