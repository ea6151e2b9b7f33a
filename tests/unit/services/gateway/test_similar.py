from typing import Any

import pytest

from services.gateway.answers import Answer, PageRequest, Reason
from services.gateway.budgets import StageBudget
from services.gateway.paging import PageTokens
from services.gateway.ports import Candidate, Found, Mode, RetrievalPort, Stored
from services.gateway.similar import SimilarFinder, SimilarPolicy, one_per_group
from shared.errors import InternalError, InvalidArgumentError, NotFoundError, UnavailableError
from tests.unit.services.gateway.fakes import FakeClock, FakeRetrieval, candidates, vectors
from tests.unit.services.gateway.shop import Shop, Thing

STORED = Stored("item", "", vectors())


async def similar(retrieval: RetrievalPort, item_id: str = "a", **page: Any) -> Answer:
    policy = SimilarPolicy(candidate_count=40, lookup=StageBudget(1.0, 0.4), retrieve=StageBudget(3.0, 0.7))
    finder = SimilarFinder(retrieval, PageTokens(b"key"), policy, remaining_s=lambda: 1.0, clock=FakeClock())
    return await finder.similar(item_id, PageRequest(**{"fingerprint": b"list", **page}))


async def test_neighbours_of_the_stored_vector_without_the_item() -> None:
    retrieval = FakeRetrieval(stored=STORED)
    answer = await similar(retrieval, filter_="filter", page_size=3)
    assert retrieval.lookups == [{"id": "a", "with_vector": True, "timeout_s": 0.4}]
    [search] = retrieval.searches
    assert (search["vector"], search["text"], search["mode"]) == (vectors(), None, Mode.DENSE)
    assert (search["exclude"], search["filter"], search["limit"]) == (("a",), "filter", 40)
    assert [r.candidate.item for r in answer.results] == ["item-0", "item-1", "item-2"]
    assert answer.next_page_token
    assert (answer.versions.query_encoder, answer.versions.index) == ("", "v1")
    assert [t.stage for t in answer.timings] == ["lookup", "retrieve", "total"]


async def test_an_index_that_changed_its_model_since_the_item_was_read_is_told() -> None:
    found = Found(candidates(3), "g0", "v1", ("PREVIOUS_GENERATION",))
    answer = await similar(FakeRetrieval(found, stored=STORED))
    assert [d.reason for d in answer.degraded] == [Reason.PREVIOUS_GENERATION]


async def test_unknown_item() -> None:
    with pytest.raises(NotFoundError) as failed:
        await similar(FakeRetrieval(stored=None), "gone")
    assert (failed.value.kind, failed.value.resource) == ("item", "gone")


async def test_every_violation_at_once() -> None:
    retrieval = FakeRetrieval(stored=STORED)
    with pytest.raises(InvalidArgumentError) as refused:
        await similar(retrieval, " ", page_size=101, candidate_count=-1, page_token="x")
    assert [v.field for v in refused.value.violations] == ["item_id", "page_size", "candidate_count", "page_token"]
    assert retrieval.lookups == []


async def test_index_down() -> None:
    with pytest.raises(UnavailableError):
        await similar(FakeRetrieval(stored=UnavailableError("vector_retrieval")))
    with pytest.raises(UnavailableError):
        await similar(FakeRetrieval(UnavailableError("vector_retrieval"), stored=STORED))


async def test_an_item_without_its_vector_is_a_bug_of_the_index() -> None:
    with pytest.raises(InternalError):
        await similar(FakeRetrieval(stored=Stored("item")))


def groups(*names: str) -> list[Candidate]:
    return [c._replace(group_id=name) for c, name in zip(candidates(len(names)), names, strict=True)]


async def test_one_variant_of_a_product_is_enough_and_none_of_the_items_own() -> None:
    found = Found(groups("own", "", "g1", "g1", "", "g2", "own", "g1"), "g1", "v1")
    answer = await similar(FakeRetrieval(found, stored=Stored("item", "own", vectors())))
    assert [r.candidate.item for r in answer.results] == ["item-1", "item-2", "item-4", "item-5"]
    assert answer.candidate_count == 4


async def test_a_product_of_more_variants_than_candidates_has_similar_items() -> None:
    variants = {f"shoe-{at}": Thing([1.0, at / 1000], "shoe") for at in range(60)}
    shop = Shop({**variants, "boot": Thing([1.0, 0.5], "boot"), "hat": Thing([0.0, 1.0])})
    answer = await similar(shop, "shoe-0")
    assert [r.candidate.item_id for r in answer.results] == ["boot", "hat"]


def test_items_on_their_own_are_no_group() -> None:
    assert len(one_per_group(groups("", "", ""), "")) == 3
