import asyncio
from typing import Any

import pytest

from services.gateway.answers import Answer, PageRequest, Reason
from services.gateway.paging import PageTokens
from services.gateway.ports import Candidate, Found, Mode, Reranked
from services.gateway.search import Searcher
from shared.errors import (
    AisleError,
    DeadlineError,
    FailedPreconditionError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    OverloadedError,
    UnavailableError,
    VersionMismatchError,
)
from tests.unit.services.gateway.fakes import (
    FakeClock,
    FakeQueryEncoder,
    FakeReranker,
    FakeRetrieval,
    candidates,
    hang,
    policy,
    vectors,
)
from tests.unit.services.gateway.shop import strangers

NO_WORDS = FailedPreconditionError("the store cannot rank by words", reason="LEXICAL_UNSUPPORTED")
DOWN = UnavailableError("x")
SOFT_FAILURES: list[AisleError] = [
    DOWN,
    DeadlineError("late"),
    OverloadedError("full"),
    InternalError("bug"),
    FailedPreconditionError("no model"),
]


class Mesh:
    """A searcher among fakes, with the deadline `remaining_s` seconds away."""

    def __init__(
        self,
        *,
        encoder: Any = None,
        found: Any = None,
        reranker: FakeReranker | None = None,
        remaining_s: float | None = None,
        **changes: Any,
    ) -> None:
        self.encoder = FakeQueryEncoder(vectors() if encoder is None else encoder)
        self.retrieval = FakeRetrieval() if found is None else FakeRetrieval(found)
        self.reranker = reranker or FakeReranker()
        self.remaining_s = remaining_s
        self.clock = FakeClock()
        self.searcher = Searcher(
            self.encoder,
            self.retrieval,
            self.reranker,
            strangers(),
            PageTokens(b"key"),
            policy(**changes),
            remaining_s=lambda: self.remaining_s,
            clock=self.clock,
        )

    async def search(self, query: str = "bunk bed", **page: Any) -> Answer:
        return await self.searcher.search(query, PageRequest(**{"fingerprint": b"list", **page}))


def ids(answer: Answer) -> list[object]:
    return [ranked.candidate.item for ranked in answer.results]


def reasons(answer: Answer) -> list[Reason]:
    return [degradation.reason for degradation in answer.degraded]


async def test_the_whole_road() -> None:
    mesh = Mesh()
    answer = await mesh.search("  bunk bed \n", filter_="filter")
    assert mesh.encoder.calls[0]["text"] == "bunk bed"
    [search] = mesh.retrieval.searches
    assert search["vector"] == vectors()
    assert (search["text"], search["mode"], search["filter"], search["limit"]) == (
        "bunk bed",
        Mode.HYBRID,
        "filter",
        40,
    )
    assert mesh.reranker.calls[0]["query"] == "bunk bed"
    assert mesh.reranker.calls[0]["items"] == [f"item-{at}" for at in range(8)]
    assert ids(answer) == [f"item-{at}" for at in (7, 6, 5, 4, 3, 2, 1, 0, 8, 9)]
    assert (answer.versions.query_encoder, answer.versions.index, answer.versions.reranker) == ("v1", "v1", "r1")
    assert (answer.candidate_count, answer.generation, list(answer.degraded)) == (40, "g1", [])
    assert [t.stage for t in answer.timings] == ["encode", "retrieve", "rerank", "total"]


@pytest.mark.parametrize("reads", [True, False])
async def test_a_reranker_that_reads_the_querys_tokens_gets_them_from_the_encoder(reads: bool) -> None:
    mesh = Mesh(reranker=FakeReranker(reads_tokens=reads))
    answer = await mesh.search()
    assert mesh.encoder.calls[0]["with_tokens"] is reads
    assert mesh.reranker.calls[0]["tokens"] == ("tokens of bunk bed" if reads else None)
    assert not answer.degraded


async def test_without_the_encoder_a_reranker_reads_the_query_itself() -> None:
    mesh = Mesh(encoder=DOWN, reranker=FakeReranker(reads_tokens=True))
    answer = await mesh.search()
    assert (mesh.reranker.calls[0]["query"], mesh.reranker.calls[0]["tokens"]) == ("bunk bed", None)
    assert reasons(answer) == [Reason.QUERY_ENCODER_UNAVAILABLE]


async def test_candidate_count_is_passed_on() -> None:
    mesh = Mesh()
    await mesh.search(candidate_count=7)
    assert mesh.retrieval.searches[0]["limit"] == 7


async def test_items_pass_through_untouched() -> None:
    item = object()
    answer = await Mesh(found=Found([Candidate("id", item, 1.0)], "g1", "v1")).search()
    assert answer.results[0].candidate.item is item


@pytest.mark.parametrize(
    ("kind", "first"), [("late-interaction", "item-7"), ("cross-encoder", "item-0"), ("", "item-7")]
)
async def test_the_weight_is_the_models_kinds(kind: str, first: str) -> None:
    answer = await Mesh(reranker=FakeReranker(kind=kind)).search()
    assert ids(answer)[0] == first


async def test_pages_cover_the_candidates_once() -> None:
    mesh = Mesh()
    seen: list[object] = []
    token = ""
    for _ in range(10):
        answer = await mesh.search(page_size=15, page_token=token)
        seen += ids(answer)
        token = answer.next_page_token
        if not token:
            break
    assert sorted(seen) == sorted(c.item for c in candidates(40))  # type: ignore[type-var]
    assert len(answer.results) == 10


async def test_a_page_past_the_end_is_empty() -> None:
    mesh = Mesh()
    token = (await mesh.search(page_size=39)).next_page_token
    mesh.retrieval.search_script = FakeRetrieval(Found(candidates(5), "g2", "v1")).search_script
    answer = await mesh.search(page_size=39, page_token=token)
    assert (ids(answer), answer.next_page_token) == ([], "")


async def test_nothing_found_is_not_a_failure_and_asks_no_reranker() -> None:
    mesh = Mesh(found=Found([], "g1", "v1"))
    answer = await mesh.search()
    assert (ids(answer), answer.candidate_count, reasons(answer)) == ([], 0, [])
    assert mesh.reranker.calls == []


async def test_reranking_can_be_switched_off() -> None:
    mesh = Mesh(rerank_count=0)
    answer = await mesh.search()
    assert ids(answer)[0] == "item-0"
    assert (mesh.reranker.calls, reasons(answer), answer.versions.reranker) == ([], [], "")


async def test_every_violation_at_once_and_nothing_is_asked() -> None:
    mesh = Mesh()
    with pytest.raises(InvalidArgumentError) as refused:
        await mesh.search("  ", page_size=-1, candidate_count=1001, page_token="nonsense")
    assert [v.field for v in refused.value.violations] == ["query", "page_size", "candidate_count", "page_token"]
    assert (mesh.encoder.calls, mesh.retrieval.searches) == ([], [])


async def test_a_token_of_another_list_is_refused() -> None:
    mesh = Mesh()
    token = (await mesh.search()).next_page_token
    with pytest.raises(InvalidArgumentError, match="page_token"):
        await mesh.search(page_token=token, fingerprint=b"other list")
    await mesh.search(page_token=token, page_size=3)


async def test_a_bad_filter_is_the_callers_with_its_path() -> None:
    error = InvalidArgumentError([FieldViolation("filter.range.field", "is not known")])
    with pytest.raises(InvalidArgumentError) as refused:
        await Mesh(found=error).search()
    assert refused.value.violations == error.violations


@pytest.mark.parametrize("error", SOFT_FAILURES)
async def test_reranker_fails(error: AisleError) -> None:
    answer = await Mesh(reranker=FakeReranker(error)).search()
    assert ids(answer) == [f"item-{at}" for at in range(10)]
    assert reasons(answer) == [Reason.RERANKER_UNAVAILABLE]
    assert error.message in answer.degraded[0].message
    assert answer.versions.reranker == ""
    assert answer.results[0].score == 1.0


async def test_reranker_scores_some() -> None:
    answer = await Mesh(reranker=FakeReranker(score_of=lambda at: float(at) if at < 3 else None)).search()
    assert ids(answer)[:5] == ["item-2", "item-1", "item-0", "item-3", "item-4"]
    assert reasons(answer) == [Reason.RERANKER_PARTIAL]
    assert "5 of 8" in answer.degraded[0].message


async def test_reranker_scores_none() -> None:
    answer = await Mesh(reranker=FakeReranker(Reranked([None] * 8, "r1"))).search()
    assert ids(answer)[0] == "item-0"
    assert reasons(answer) == [Reason.RERANKER_UNAVAILABLE]


async def test_no_time_to_rerank() -> None:
    mesh = Mesh()
    original = mesh.retrieval.search

    async def slow(**arguments: Any) -> Found:
        mesh.remaining_s = 0.04
        return await original(**arguments)

    mesh.retrieval.search = slow  # type: ignore[method-assign]
    mesh.remaining_s = 1.0
    answer = await mesh.search()
    assert reasons(answer) == [Reason.RERANKER_UNAVAILABLE]
    assert mesh.reranker.calls == []


@pytest.mark.parametrize("error", SOFT_FAILURES)
async def test_query_encoder_fails(error: AisleError) -> None:
    mesh = Mesh(encoder=error)
    answer = await mesh.search()
    [search] = mesh.retrieval.searches
    assert (search["vector"], search["text"], search["mode"]) == (None, "bunk bed", Mode.LEXICAL)
    assert reasons(answer) == [Reason.QUERY_ENCODER_UNAVAILABLE]
    assert error.message in answer.degraded[0].message
    assert (answer.versions.query_encoder, answer.versions.index) == ("", "v1")
    assert [t.stage for t in answer.timings] == ["encode", "retrieve", "rerank", "total"]


async def test_a_query_the_model_cannot_read_is_the_callers() -> None:
    with pytest.raises(InvalidArgumentError, match="query"):
        await Mesh(encoder=InvalidArgumentError.of("query", "has no words")).search()


@pytest.mark.parametrize("found", [NO_WORDS, Found([], "g1", "v1", ("LEXICAL_UNSUPPORTED",))])
async def test_neither_vector_nor_words(found: Any) -> None:
    with pytest.raises(UnavailableError, match="by words alone") as failed:
        await Mesh(encoder=UnavailableError("query_encoder", retry_after_s=2.0), found=found).search()
    assert (failed.value.dependency, failed.value.retry_after_s) == ("query_encoder", 2.0)


async def test_an_encoder_with_too_much_to_do_and_no_words_is_no_outage() -> None:
    full = OverloadedError("256 rows wait", reason="QUEUE_FULL", retry_after_s=0.3)
    with pytest.raises(OverloadedError, match="256 rows wait, and the store cannot search by words") as refused:
        await Mesh(encoder=full, found=NO_WORDS).search()
    assert (refused.value.reason, refused.value.retry_after_s) == ("QUEUE_FULL", 0.3)


async def test_encoder_down_and_the_index_for_another_reason_unfit() -> None:
    with pytest.raises(FailedPreconditionError, match="empty"):
        await Mesh(encoder=DOWN, found=FailedPreconditionError("the index is empty")).search()


async def test_a_store_without_words_is_told() -> None:
    answer = await Mesh(found=Found(candidates(3), "g1", "v1", ("LEXICAL_UNSUPPORTED",))).search()
    assert reasons(answer) == [Reason.LEXICAL_UNSUPPORTED]


async def test_an_index_with_a_newer_model_than_the_query_is_told() -> None:
    answer = await Mesh(found=Found(candidates(3), "g0", "v1", ("PREVIOUS_GENERATION",))).search()
    assert (reasons(answer), answer.generation) == ([Reason.PREVIOUS_GENERATION], "g0")
    both = Found(candidates(3), "g0", "v1", ("LEXICAL_UNSUPPORTED", "PREVIOUS_GENERATION"))
    assert reasons(await Mesh(found=both).search()) == [Reason.LEXICAL_UNSUPPORTED, Reason.PREVIOUS_GENERATION]


async def test_everything_soft_down_at_once() -> None:
    answer = await Mesh(encoder=DOWN, reranker=FakeReranker(DOWN)).search()
    assert reasons(answer) == [Reason.QUERY_ENCODER_UNAVAILABLE, Reason.RERANKER_UNAVAILABLE]
    assert len(answer.results) == 10


@pytest.mark.parametrize(
    "error", [UnavailableError("vector_retrieval", retry_after_s=1.5), VersionMismatchError("v1", "v2"), NO_WORDS]
)
async def test_retrieval_fails_with_its_own_error(error: AisleError) -> None:
    with pytest.raises(type(error)) as failed:
        await Mesh(found=error).search()
    assert failed.value is error


async def test_recovers_by_itself() -> None:
    mesh = Mesh(found=DOWN)
    with pytest.raises(UnavailableError):
        await mesh.search()
    mesh.retrieval.search_script = FakeRetrieval().search_script
    assert len((await mesh.search()).results) == 10


async def test_budgets_follow_the_deadline() -> None:
    mesh = Mesh(remaining_s=1.0)
    await mesh.search()
    assert mesh.encoder.calls[0]["timeout_s"] == pytest.approx(0.25)
    assert mesh.retrieval.searches[0]["timeout_s"] == pytest.approx(0.7)
    assert mesh.reranker.calls[0]["timeout_s"] == pytest.approx(0.9)


async def test_budgets_are_capped_under_a_long_deadline_and_without_one() -> None:
    for remaining in (60.0, None):
        mesh = Mesh(remaining_s=remaining)
        await mesh.search()
        assert mesh.encoder.calls[0]["timeout_s"] == 0.5
        assert mesh.retrieval.searches[0]["timeout_s"] == 3.0
        assert mesh.reranker.calls[0]["timeout_s"] == 1.0


async def test_a_passed_deadline_asks_nobody() -> None:
    mesh = Mesh(remaining_s=-0.1)
    with pytest.raises(DeadlineError):
        await mesh.search()
    assert (mesh.encoder.calls, mesh.retrieval.searches) == ([], [])


@pytest.mark.parametrize("stage", ["encode", "retrieve", "rerank"])
async def test_a_cancelled_search_cancels_the_stage_it_is_in(stage: str) -> None:
    cancelled = asyncio.Event()

    async def wait() -> None:
        try:
            await hang()
        finally:
            cancelled.set()

    mesh = {
        "encode": lambda: Mesh(encoder=wait),
        "retrieve": lambda: Mesh(found=wait),
        "rerank": lambda: Mesh(reranker=FakeReranker(wait)),
    }[stage]()
    searching = asyncio.create_task(mesh.search())
    await asyncio.sleep(0.01)
    searching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await searching
    assert cancelled.is_set()
