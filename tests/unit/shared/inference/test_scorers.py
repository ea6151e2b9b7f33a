import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from shared.bundles import Bundle, Pooling
from shared.errors import DeadlineError, InternalError, InvalidArgumentError, OverloadedError
from shared.inference import (
    BackendName,
    Batcher,
    CrossEncoder,
    LateInteraction,
    Limits,
    Output,
    Scorer,
    Storage,
    open_scorer,
)
from shared.inference.backends.dummy import DummyBackend
from shared.inference.encoder import INLINE_CHARS
from shared.inference.late_interaction import TextVectors, interact
from shared.inference.text_rows import text_rows
from shared.inference.tokens import TextTokenizer, Tokens

TEXTS = ["red shoe", "blue hat", "a much longer text about nothing", "red shoe", "x"]

Make = Callable[..., Awaitable[tuple[Scorer, DummyBackend]]]


@pytest.fixture(params=["cross", "late"])
async def make(request: pytest.FixtureRequest, bundle: Bundle, cross_bundle: Bundle) -> AsyncIterator[Make]:
    """`await make()` gives a started scorer of each kind and its backend."""
    made: list[Scorer] = []

    async def make_one(limits: Limits | None = None, **options: Any) -> tuple[Scorer, DummyBackend]:
        cross = request.param == "cross"
        backend = DummyBackend(output=Output.LOGITS if cross else Output.TOKENS, **options)
        batcher: Batcher[Tokens, Any] = Batcher(backend, limits)
        scorer: Scorer = CrossEncoder(cross_bundle, batcher) if cross else LateInteraction(bundle, batcher)
        await scorer.start()
        made.append(scorer)
        return scorer, backend

    yield make_one
    for scorer in made:
        await scorer.close()


async def test_every_text_gets_a_score_and_equal_texts_the_same(make: Make) -> None:
    scorer, _ = await make()
    scores = await scorer.score("red shoes", TEXTS)
    assert len(scores.values) == 5
    assert scores.unscored == 0
    assert scores.values[0] == pytest.approx(scores.values[3], abs=1e-6)
    assert len({round(value or 0, 6) for value in scores.values}) == 4
    assert (await scorer.score("red shoes", [])).values == []


async def test_long_texts_are_refused_before_they_are_tokenised(make: Make) -> None:
    scorer, backend = await make(Limits(rows=8))
    backend.gate.clear()
    running = asyncio.ensure_future(scorer.batcher.submit([Tokens([2, 3])]))
    assert await asyncio.to_thread(backend.entered.wait, 5)
    waiting = asyncio.ensure_future(scorer.batcher.submit([Tokens([2, 3])] * 4))
    await asyncio.sleep(0)
    texts = ["a" * INLINE_CHARS + letter for letter in "abcde"]
    with pytest.raises(OverloadedError):
        await scorer.score("red shoes", texts)
    backend.gate.set()
    await asyncio.gather(running, waiting)
    assert (await scorer.score("red shoes", texts)).unscored == 0


async def test_scores_do_not_depend_on_company(make: Make) -> None:
    scorer, _ = await make()
    together = (await scorer.score("red shoes", TEXTS)).values
    alone = [(await scorer.score("red shoes", [text])).values[0] for text in TEXTS]
    assert together == pytest.approx(alone, abs=1e-6)


async def test_when_time_runs_out_what_is_scored_is_returned_and_the_rest_is_unscored(make: Make) -> None:
    scorer, _ = await make(Limits(batch_rows=2), delay_s=0.05)
    texts = [f"item {'abcdefgh'[index]}" for index in range(8)]
    scores = await scorer.score("red shoes", texts, deadline=time.monotonic() + 0.2)
    assert 0 < scores.unscored < 8
    assert not scores.failures


async def test_when_there_is_time_for_nothing_all_is_unscored(make: Make) -> None:
    scorer, backend = await make()
    backend.gate.clear()
    scores = await scorer.score("red shoes", TEXTS, deadline=time.monotonic() + 0.03)
    assert scores.unscored == 5
    backend.gate.set()


async def test_a_deadline_in_the_past_is_an_error(make: Make) -> None:
    scorer, _ = await make()
    with pytest.raises(DeadlineError):
        await scorer.score("red shoes", TEXTS, deadline=time.monotonic() - 1)


async def test_a_poison_text_is_unscored_and_named(make: Make) -> None:
    scorer, _ = await make(poison=lambda row: len(row) > 25)
    scores = await scorer.score("ab", TEXTS)
    assert set(scores.failures) == {2}
    assert isinstance(scores.failures[2], InternalError)
    assert [value is None for value in scores.values] == [False, False, True, False, False]


async def test_what_is_no_text_is_refused(make: Make) -> None:
    scorer, _ = await make()
    with pytest.raises(InvalidArgumentError, match="query"):
        await scorer.score("\ud800", TEXTS)
    scores = await scorer.score("red", ["fine", "\ud800"])
    assert set(scores.failures) == {1}
    assert scores.values[0] is not None


async def test_pairs_of_different_requests_share_batches(make: Make) -> None:
    scorer, backend = await make()
    backend.gate.clear()
    calls = [asyncio.ensure_future(scorer.score(f"q {'abcd'[index]}", TEXTS)) for index in range(4)]
    await asyncio.sleep(0.05)
    backend.gate.set()
    await asyncio.gather(*calls)
    assert len(backend.batches) < len(backend.seen) / 2


async def test_warm_up_says_when_the_model_is_broken(make: Make) -> None:
    scorer, _ = await make()
    await scorer.warm_up()
    broken, _ = await make(poison=lambda row: True)
    with pytest.raises(InternalError):
        await broken.warm_up()


async def test_drain_and_close(make: Make) -> None:
    scorer, _ = await make()
    assert await scorer.drain(1)
    await scorer.close()
    assert not scorer.batcher.health.ok


async def test_late_interaction_encodes_an_item_once_and_the_query_once_a_call(bundle: Bundle) -> None:
    backend = DummyBackend(output=Output.TOKENS)
    scorer = LateInteraction(bundle, Batcher(backend))
    await scorer.start()
    first = await scorer.score("red shoes", TEXTS)
    assert len(backend.seen) == 1 + 4
    again = await scorer.score("red shoes", TEXTS)
    assert len(backend.seen) == 1 + 4 + 1
    assert first.values == pytest.approx(again.values, abs=1e-6)
    await scorer.close()


@pytest.fixture
async def late(bundle: Bundle) -> AsyncIterator[tuple[LateInteraction, DummyBackend]]:
    backend = DummyBackend(output=Output.TOKENS)
    scorer = LateInteraction(bundle, Batcher(backend, Limits(batch_rows=2)))
    await scorer.start()
    yield scorer, backend
    await scorer.close()


def query_rows(scorer: LateInteraction, query: str) -> Any:
    """As the query encoder gives them."""
    ids = TextTokenizer(scorer.bundle.tokenizer_path, 16).encode(query).ids
    tokens = np.stack([DummyBackend()._vector([token]) for token in ids])
    return text_rows(tokens, scorer.bundle.manifest.pooling).astype(np.float16).astype(np.float32)


Late = tuple[LateInteraction, DummyBackend]


async def test_a_query_that_comes_with_its_vectors_is_not_encoded(late: Late) -> None:
    scorer, backend = late
    expected = await scorer.score("red shoes", TEXTS[:2])
    assert len(backend.seen) == 1 + 2
    given = query_rows(scorer, "red shoes")
    got = await scorer.score("red shoes", TEXTS[:3], query_rows=given)
    assert len(backend.seen) == 1 + 2 + 1, "the one item that was not known"
    assert got.values[:2] == pytest.approx(expected.values, abs=2e-4)
    again = await scorer.score("red shoes", TEXTS[:3], query_rows=given)
    assert len(backend.seen) == 1 + 2 + 1, "no forward pass at all"
    assert again.values == pytest.approx(got.values, abs=1e-6)


async def test_with_the_query_given_a_short_deadline_leaves_out_only_what_is_not_known(late: Late) -> None:
    scorer, backend = late
    await scorer.score("red shoes", TEXTS[:2])
    backend.gate.clear()
    deadline = time.monotonic() + 0.05
    scores = await scorer.score("red shoes", TEXTS, query_rows=query_rows(scorer, "red shoes"), deadline=deadline)
    # The fourth text is the first again.
    assert [value is None for value in scores.values] == [False, False, True, False, True]
    assert not scores.failures
    backend.gate.set()
    with pytest.raises(DeadlineError):
        await scorer.score("red", TEXTS, query_rows=query_rows(scorer, "red"), deadline=time.monotonic() - 1)


async def test_a_cross_encoder_reads_the_query_itself(cross_bundle: Bundle) -> None:
    scorer = CrossEncoder(cross_bundle, Batcher(DummyBackend(output=Output.LOGITS)))
    await scorer.start()
    plain = await scorer.score("red", TEXTS)
    assert (await scorer.score("red", TEXTS, query_rows=np.ones((3, 8), np.float32))).values == plain.values
    await scorer.close()


async def test_late_interaction_keeps_to_its_bytes(bundle: Bundle) -> None:
    backend = DummyBackend(output=Output.TOKENS)
    scorer = LateInteraction(bundle, Batcher(backend), cache_bytes=2000)
    await scorer.start()
    for index in range(30):
        await scorer.score("red", [f"item {'a' * index}"])
    assert scorer._known.bytes <= 2000
    await scorer.close()


@pytest.mark.parametrize("storage", Storage)
@pytest.mark.parametrize("pooling", Pooling)
def test_late_interaction_is_max_sim_and_cosine(storage: Storage, pooling: Pooling) -> None:
    random = np.random.default_rng(0)
    query = text_rows(random.standard_normal((5, 32)).astype(np.float32), pooling)
    items = [text_rows(random.standard_normal((n, 32)).astype(np.float32), pooling) for n in (3, 1, 9)]
    expected = [((query[:-1] @ item[:-1].T).max(axis=1).mean() + query[-1] @ item[-1]) / 2 for item in items]
    got = interact(query, [TextVectors.pack(item, storage) for item in items])
    np.testing.assert_allclose(got, expected, atol=5e-3)


def test_a_text_answers_itself_perfectly() -> None:
    rows = text_rows(np.random.default_rng(1).standard_normal((6, 32)).astype(np.float32), Pooling.MEAN)
    assert interact(rows, [TextVectors.pack(rows, Storage.FLOAT16)]) == pytest.approx([1.0], abs=1e-3)


async def test_cross_encoder_pairs_are_those_of_the_tokenizer(cross_bundle: Bundle) -> None:
    pairs = TextTokenizer(cross_bundle.tokenizer_path, 48)
    pair = pairs.pair(pairs.start("ab"), "cd")
    assert pair.ids == [2, 4, 31, 3, 6, 33, 3]
    assert pair.types == [0, 0, 0, 0, 1, 1, 1]


async def test_cross_encoder_scores_are_probabilities(cross_bundle: Bundle) -> None:
    class Labelled(DummyBackend):
        def _answer(self, row: Tokens) -> Any:
            return np.array([1.0, 3.0], np.float32)

    scorer = CrossEncoder(cross_bundle, Batcher(Labelled()))
    await scorer.start()
    (value,) = (await scorer.score("a", ["b"])).values
    assert value == pytest.approx(np.exp(3) / (np.exp(1) + np.exp(3)), abs=1e-6)
    await scorer.close()


async def test_the_bundle_decides_which_scorer(bundle: Bundle, cross_bundle: Bundle) -> None:
    late = open_scorer(bundle, backend=BackendName.DUMMY)
    cross = open_scorer(cross_bundle, backend=BackendName.DUMMY)
    assert isinstance(late, LateInteraction)
    assert isinstance(cross, CrossEncoder)
    for scorer in (late, cross):
        await scorer.start()
        await scorer.warm_up()
        assert (await scorer.score("red", ["blue"])).unscored == 0
        await scorer.close()
    with pytest.raises(ValueError, match="not a cross-encoder"):
        CrossEncoder(bundle, late.batcher)
    with pytest.raises(ValueError, match="not a bi-encoder"):
        LateInteraction(cross_bundle, cross.batcher)


async def test_known_items_are_scored_when_no_time_or_room_is_left_for_others(bundle: Bundle) -> None:
    backend = DummyBackend(output=Output.TOKENS)
    scorer = LateInteraction(bundle, Batcher(backend, Limits(rows=4)))
    await scorer.start()
    given = query_rows(scorer, "red shoes")
    known = await scorer.score("red shoes", TEXTS[:1], query_rows=given)
    late = await scorer.score("red shoes", TEXTS[:2], query_rows=given, deadline=time.monotonic() + 0.004)
    assert late.values == [known.values[0], None]
    assert not late.failures
    others = [f"item {number}" for number in range(5)]
    backend.gate.clear()
    backend.entered.clear()
    running = asyncio.ensure_future(scorer.batcher.submit([Tokens([2, 3])]))
    assert await asyncio.to_thread(backend.entered.wait, 5)
    waiting = asyncio.ensure_future(scorer.batcher.submit([Tokens([2, 3])] * 4))
    await asyncio.sleep(0)
    full = await scorer.score("red shoes", [TEXTS[0], *others], query_rows=given)
    assert full.values == [known.values[0], *[None] * 5]
    assert all(isinstance(error, OverloadedError) for error in full.failures.values())
    with pytest.raises(OverloadedError):
        await scorer.score("red shoes", others, query_rows=given)
    long = ["a" * (INLINE_CHARS + 1), "\ud800"]
    full = await scorer.score("red shoes", [TEXTS[0], *long], query_rows=given)
    assert full.values == [known.values[0], None, None]
    assert [type(error) for error in full.failures.values()] == [OverloadedError] * 2
    with pytest.raises(OverloadedError):
        await scorer.score("red shoes", [TEXTS[0], *long])
    backend.gate.set()
    await asyncio.gather(running, waiting)
    await scorer.close()


async def test_a_cross_encoder_without_time_scores_nothing_and_fails_nothing(cross_bundle: Bundle) -> None:
    scorer = CrossEncoder(cross_bundle, Batcher(DummyBackend(output=Output.LOGITS)))
    await scorer.start()
    found = await scorer.score("a", ["b", "c"], deadline=time.monotonic() + 0.004)
    assert (found.values, found.failures) == ([None, None], {})
    await scorer.close()
