import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from shared.bundles import Bundle
from shared.errors import DeadlineError, InvalidArgumentError, OverloadedError, UnavailableError
from shared.inference import BiEncoder, Limits, Priority, QueryCache
from shared.inference.backends.dummy import DummyBackend
from shared.inference.encoder import INLINE_CHARS, TokenizerThreads
from shared.inference.text_rows import text_rows
from shared.inference.tokens import Tokens
from tests.unit.shared.inference.conftest import Start

SURROGATE = "\ud800"
LONG = "a" * (INLINE_CHARS + 1)
INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


class Held:
    """A tokenizer that goes on when `gate` is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.calls = 0

    def __call__(self, text: str) -> Tokens:
        self.calls += 1
        assert self.gate.wait(10)
        return Tokens([1])


@pytest.fixture
def held() -> Iterator[Held]:
    tokenizer = Held()
    yield tokenizer
    tokenizer.gate.set()


async def test_vectors_are_unit_float32_rows_in_order(bundle: Bundle, start: Start) -> None:
    encoder = BiEncoder(bundle, await start(DummyBackend()))
    encoding = await encoder.encode_items(["red shoe", "blue hat", "red shoe"])
    assert encoding.vectors.dtype == np.float32
    assert encoding.vectors.shape == (3, 8)
    assert encoding.vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(encoding.vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(encoding.vectors[0], encoding.vectors[2])
    assert not encoding.failures
    assert encoder.version == bundle.version


async def test_a_text_that_is_no_text_fails_alone(bundle: Bundle, start: Start) -> None:
    for cache in (None, QueryCache(1 << 20)):
        encoder = BiEncoder(bundle, await start(DummyBackend()), cache=cache)
        encoding = await encoder.encode_queries(["red shoe", SURROGATE, "blue hat"])
        assert set(encoding.failures) == {1}
        error = encoding.failures[1]
        assert isinstance(error, InvalidArgumentError)
        assert error.violations[0].field == "texts[1]"
        assert not encoding.vectors[1].any()
        assert encoding.vectors[0].any()
        assert encoding.vectors[2].any()


async def test_a_poison_text_among_63_good_ones_fails_alone(bundle: Bundle, start: Start) -> None:
    marked = await _ids(bundle, "zzzz")
    encoder = BiEncoder(bundle, await start(DummyBackend(poison=lambda row: list(row.ids) == marked)))
    texts = [f"item {'abc'[index % 3] * (1 + index % 9)}" for index in range(64)]
    texts[20] = "zzzz"
    encoding = await encoder.encode_items(texts)
    assert set(encoding.failures) == {20}


async def _ids(bundle: Bundle, text: str) -> list[int]:
    from shared.inference.tokens import TextTokenizer

    return list(TextTokenizer(bundle.tokenizer_path, 48).encode(text).ids)


async def test_long_texts_are_cut_at_the_bundles_limits(bundle: Bundle, start: Start) -> None:
    backend = DummyBackend()
    encoder = BiEncoder(bundle, await start(backend))
    await encoder.encode_queries(["word " * 500])
    await encoder.encode_items(["word " * 5000])
    await encoder.encode_users(["word " * 5000])
    assert list(map(len, backend.seen)) == [16, 48, 48]


async def test_with_a_cache_equal_queries_run_once(bundle: Bundle, start: Start) -> None:
    backend = DummyBackend()
    encoder = BiEncoder(bundle, await start(backend), cache=QueryCache(1 << 20))
    first = await encoder.encode_queries(["Red  Shoe", "red shoe ", "blue hat"])
    again = await asyncio.gather(*(encoder.encode_queries(["RED SHOE"]) for _ in range(10)))
    assert len(backend.seen) == 2
    np.testing.assert_array_equal(first.vectors[0], first.vectors[1])
    for encoding in again:
        np.testing.assert_array_equal(encoding.vectors[0], first.vectors[0])


async def test_without_a_cache_every_query_runs(bundle: Bundle, start: Start) -> None:
    backend = DummyBackend()
    encoder = BiEncoder(bundle, await start(backend))
    for _ in range(3):
        await encoder.encode_queries(["red shoe"])
    assert len(backend.seen) == 3


@pytest.mark.parametrize("cached", [False, True])
async def test_a_late_call_is_a_deadline_error_as_a_whole(bundle: Bundle, start: Start, cached: bool) -> None:
    backend = DummyBackend()
    encoder = BiEncoder(bundle, await start(backend), cache=QueryCache(1 << 20) if cached else None)
    backend.gate.clear()
    with pytest.raises(DeadlineError):
        await encoder.encode_queries(["red shoe"], deadline=time.monotonic() + 0.02)
    backend.gate.set()
    assert len((await encoder.encode_queries(["red shoe"])).vectors) == 1


async def test_a_full_queue_is_the_callers_to_know(bundle: Bundle, start: Start) -> None:
    backend = DummyBackend()
    encoder = BiEncoder(bundle, await start(backend, Limits(rows=2)))
    backend.gate.clear()
    calls = [asyncio.ensure_future(encoder.encode_queries([f"q {'a' * index}"])) for index in range(12)]
    done, _ = await asyncio.wait(calls, timeout=0.1)
    assert any(isinstance(call.exception(), OverloadedError) for call in done)
    backend.gate.set()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_warm_up_covers_the_longest_texts_and_reports_a_broken_model(bundle: Bundle, start: Start) -> None:
    backend = DummyBackend()
    encoder = BiEncoder(bundle, await start(backend))
    await encoder.warm_up()
    assert max(map(len, backend.seen)) == 48
    broken = BiEncoder(bundle, await start(DummyBackend(poison=lambda row: True)))
    with pytest.raises(Exception, match="could not process"):
        await broken.warm_up()


@pytest.mark.parametrize("cached", [False, True])
async def test_queries_give_the_vectors_of_their_tokens_where_asked(bundle: Bundle, start: Start, cached: bool) -> None:
    backend = DummyBackend()
    encoder = BiEncoder(bundle, await start(backend), cache=QueryCache(1 << 20) if cached else None)
    plain = await encoder.encode_queries(["ab", "abcd"])
    assert plain.rows == ()
    both = await encoder.encode_queries(["ab", SURROGATE, "abcd"], token_vectors=True)
    np.testing.assert_array_equal(both.vectors[[0, 2]], plain.vectors)
    assert [(rows.dtype, rows.shape) for rows in both.rows] == [
        (np.float16, (5, 8)),
        (np.float16, (0, 8)),
        (np.float16, (7, 8)),
    ]
    tokens = np.stack([backend._vector([token]) for token in await _ids(bundle, "ab")])
    np.testing.assert_array_equal(both.rows[0], text_rows(tokens, bundle.manifest.pooling).astype(np.float16))


async def test_a_batch_mixes_those_who_ask_for_token_vectors_and_those_who_do_not(bundle: Bundle, start: Start) -> None:
    backend = DummyBackend()
    encoder = BiEncoder(bundle, await start(backend))
    backend.gate.clear()
    calls = [asyncio.ensure_future(encoder.encode_queries(["ab"], token_vectors=bool(at % 2))) for at in range(6)]
    await asyncio.sleep(0.05)
    backend.gate.set()
    answers = await asyncio.gather(*calls)
    assert max(backend.batches) > 1
    assert [[len(rows) for rows in answer.rows] for answer in answers] == [[], [5]] * 3
    assert len({answer.vectors.tobytes() for answer in answers}) == 1


async def test_token_vectors_come_from_the_cache_too(bundle: Bundle, start: Start) -> None:
    backend = DummyBackend()
    encoder = BiEncoder(bundle, await start(backend), cache=QueryCache(1 << 20))
    first = await encoder.encode_queries(["red shoe"], token_vectors=True)
    again = await encoder.encode_queries(["Red  Shoe"], token_vectors=True)
    plain = await encoder.encode_queries(["red shoe"])
    assert len(backend.seen) == 1
    np.testing.assert_array_equal(first.rows[0], again.rows[0])
    np.testing.assert_array_equal(first.vectors, plain.vectors)
    assert plain.rows == ()


async def test_large_calls_are_tokenised_off_the_event_loop(bundle: Bundle, start: Start) -> None:
    encoder = BiEncoder(bundle, await start(DummyBackend()))
    call = asyncio.ensure_future(encoder.encode_items(["a long text " * 200] * 50))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not call.done()
    assert len((await call).vectors) == 50


async def test_keys_of_large_calls_are_made_off_the_event_loop(
    bundle: Bundle, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = DummyBackend()
    encoder = BiEncoder(bundle, await start(backend), cache=QueryCache(1 << 20))
    normalize = encoder._queries.normalize
    on_the_loop: list[bool] = []
    loops = threading.current_thread()

    def noting(text: str) -> str:
        on_the_loop.append(threading.current_thread() is loops)
        return normalize(text)

    monkeypatch.setattr(encoder._queries, "normalize", noting)
    for texts in (["red shoe"], [LONG, "red shoe"], [LONG]):
        await encoder.encode_queries(texts)
    assert on_the_loop == [True, False, False, False]
    assert len(backend.seen) == 2, "long or short, what is known is not run again"


async def test_large_calls_whose_keys_are_being_made_take_room_in_the_queue(
    bundle: Bundle, start: Start, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = BiEncoder(bundle, await start(DummyBackend(), Limits(rows=4)), cache=QueryCache(1 << 20))
    monkeypatch.setattr(encoder._queries, "normalize", held)
    calls = [asyncio.ensure_future(encoder.encode_queries([LONG])) for _ in range(20)]
    await asyncio.sleep(0.05)
    assert [isinstance(call.exception(), OverloadedError) for call in calls if call.done()] == [True] * 16
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_what_is_being_tokenised_takes_room_in_the_queue(start: Start, held: Held) -> None:
    batcher = await start(DummyBackend(), Limits(rows=4, bulk_rows=4))
    threads = TokenizerThreads(batcher)
    calls = [asyncio.ensure_future(threads.map(held, [LONG], priority=INTERACTIVE, others=1)) for _ in range(20)]
    await asyncio.sleep(0.05)
    assert [call.done() for call in calls] == [False] * 2 + [True] * 18
    for call in calls[2:]:
        error = call.exception()
        assert isinstance(error, OverloadedError)
        assert error.reason == "QUEUE_FULL"
        assert 0 < error.retry_after_s <= 5
    with pytest.raises(OverloadedError, match="4 interactive rows wait"):
        await batcher.submit([Tokens([1])])
    assert len(await batcher.submit([Tokens([1])], priority=BULK)) == 1
    held.gate.set()
    assert [len(await call) for call in calls[:2]] == [1, 1]
    assert held.calls == 2
    assert len(await batcher.submit([Tokens([1])] * 4)) == 4


async def test_a_cancelled_call_gives_its_room_back(start: Start, held: Held) -> None:
    batcher = await start(DummyBackend(), Limits(rows=4))
    threads = TokenizerThreads(batcher)
    calls = [asyncio.ensure_future(threads.map(held, [LONG] * 2, priority=INTERACTIVE)) for _ in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(OverloadedError):
        await threads.map(held, [LONG], priority=INTERACTIVE)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert len(await batcher.submit([Tokens([1])] * 4)) == 4
    held.gate.set()
    assert len(await threads.map(held, [LONG] * 4, priority=INTERACTIVE)) == 4
    assert held.calls == 2 + 4, "a call that was cancelled before its turn is not tokenised"


async def test_a_call_larger_than_the_bound_is_tokenised_when_nothing_else_waits(bundle: Bundle, start: Start) -> None:
    encoder = BiEncoder(bundle, await start(DummyBackend(), Limits(rows=4)))
    assert len((await encoder.encode_items([LONG] * 10)).vectors) == 10


async def test_interactive_calls_do_not_wait_behind_bulk_that_is_being_tokenised(
    bundle: Bundle, start: Start, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = BiEncoder(bundle, await start(DummyBackend()))
    encode: Callable[..., Tokens] = encoder._items.encode
    monkeypatch.setattr(
        encoder._items, "encode", lambda text, **options: held(text) if "b" in text else encode(text, **options)
    )
    bulk = [asyncio.ensure_future(encoder.encode_items([LONG + "b"] * 8, priority=BULK)) for _ in range(8)]
    await asyncio.sleep(0)
    assert len((await asyncio.wait_for(encoder.encode_items([LONG]), 5)).vectors) == 1
    assert not any(call.done() for call in bulk)
    held.gate.set()
    assert [len(encoding.vectors) for encoding in await asyncio.gather(*bulk)] == [8] * 8


async def test_large_calls_are_refused_before_they_are_tokenised(
    bundle: Bundle, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = DummyBackend()
    encoder = BiEncoder(bundle, await start(backend, Limits(rows=4)))
    encode: Callable[..., Tokens] = encoder._items.encode
    tokenised: list[str] = []

    def counting(text: str, **options: bool) -> Tokens:
        tokenised.append(text)
        return encode(text, **options)

    monkeypatch.setattr(encoder._items, "encode", counting)
    backend.gate.clear()
    calls = [asyncio.ensure_future(encoder.encode_items([LONG])) for _ in range(50)]
    await asyncio.sleep(0.1)
    backend.gate.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, OverloadedError)]
    # Four are let in at once, and one more where the thread takes rows meanwhile.
    assert len(refused) >= 40
    assert len(tokenised) == 50 - len(refused)
    await encoder.batcher.drain(1)
    with pytest.raises(UnavailableError):
        await encoder.encode_items([LONG])
    assert len(tokenised) == 50 - len(refused)


async def test_no_texts_no_vectors(bundle: Bundle, start: Start) -> None:
    encoder = BiEncoder(bundle, await start(DummyBackend()), cache=QueryCache(1 << 20))
    assert (await encoder.encode_queries([])).vectors.shape == (0, 8)


async def test_a_cross_encoder_bundle_does_not_encode(cross_bundle: Bundle, start: Start) -> None:
    with pytest.raises(ValueError, match="not a bi-encoder"):
        BiEncoder(cross_bundle, await start(DummyBackend()))
