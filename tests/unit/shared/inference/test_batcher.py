import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from shared.errors import AisleError, DeadlineError, InternalError, OverloadedError, UnavailableError
from shared.inference import Health, Limits, NoObserver, Priority, Timing
from shared.inference.backends.dummy import DummyBackend
from shared.inference.tokens import Tokens
from tests.unit.shared.inference.conftest import Start, words


class Recorder(NoObserver):
    def __init__(self) -> None:
        self.dropped_rows: list[tuple[str, int]] = []
        self.refused_rows: list[tuple[str, int]] = []
        self.batches: list[tuple[int, int, float]] = []
        self.failed_rows = 0
        self.depths: list[tuple[Priority, int]] = []

    def dropped(self, why: str, rows: int) -> None:
        self.dropped_rows.append((why, rows))

    def refused(self, reason: str, rows: int) -> None:
        self.refused_rows.append((reason, rows))

    def batch(self, rows: int, tokens: int, padding_share: float, seconds: float) -> None:
        self.batches.append((rows, tokens, padding_share))

    def failed(self, rows: int) -> None:
        self.failed_rows += rows

    def queue_depth(self, priority: Priority, rows: int) -> None:
        self.depths.append((priority, rows))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something another thread does; the test's own time limit ends it."""
    while not condition():  # noqa: ASYNC110 - the other side is a thread
        await asyncio.sleep(0.005)


async def held(start: Start, backend: DummyBackend, **options: Any) -> Any:
    """A batcher whose thread is inside a forward pass that `backend.gate` holds up."""
    batcher = await start(backend, **options)
    backend.gate.clear()
    first = asyncio.ensure_future(batcher.submit([words(1, first=99)]))
    await until(backend.entered.is_set)
    return batcher, first


async def test_results_come_in_the_order_of_the_rows(start: Start) -> None:
    backend = DummyBackend()
    batcher = await start(backend, Limits(batch_tokens=32))
    rows = [words(size, first) for first, size in enumerate((3, 30, 5, 17, 4, 64, 2))]
    together = await batcher.submit(rows)
    alone = [(await batcher.submit([row]))[0] for row in rows]
    np.testing.assert_array_equal(together, alone)
    assert len(backend.batches) > len(rows), "the request was spread over several batches"
    assert await batcher.submit([]) == []


async def test_two_thousand_callers_against_a_queue_of_64(start: Start) -> None:
    recorder = Recorder()
    batcher = await start(DummyBackend(delay_s=0.001), Limits(rows=64, batch_rows=8), observer=recorder)

    async def call(index: int) -> str:
        try:
            await batcher.submit([words(1 + index % 40, first=index)])
        except OverloadedError as error:
            return f"{error.reason} {0 < error.retry_after_s <= 5}"
        return "answered"

    outcomes = await asyncio.gather(*(call(index) for index in range(2000)))
    assert len(outcomes) == 2000
    assert outcomes.count("answered") >= 64
    refused = outcomes.count("QUEUE_FULL True")
    assert refused == 2000 - outcomes.count("answered") > 0
    assert max(rows for _, rows in recorder.depths) <= 64
    assert sum(rows for _, rows in recorder.refused_rows) == refused
    assert not batcher._open
    assert len(await batcher.submit([words(3)])) == 1


async def test_a_poison_row_among_63_good_ones_fails_alone(start: Start) -> None:
    backend = DummyBackend(poison=lambda row: row.ids[0] == 13)
    recorder = Recorder()
    batcher = await start(backend, Limits(batch_tokens=4096), observer=recorder)
    outcomes = await batcher.submit([words(4, first=index) for index in range(64)])
    failed = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, AisleError)]
    assert failed == [13]
    assert isinstance(outcomes[13], InternalError)
    assert "poison" not in outcomes[13].message
    assert len(backend.batches) <= 1 + 2 * 6
    assert recorder.failed_rows == 1


async def test_what_nobody_waits_for_is_not_run_again_when_its_batch_failed(start: Start) -> None:
    backend = DummyBackend(poison=lambda row: row.ids[0] == 13)
    batcher, first = await held(start, backend)
    calls = [asyncio.ensure_future(batcher.submit([words(4, first=index)])) for index in (12, 13, 14)]
    await asyncio.sleep(0)
    loop, prepare = asyncio.get_running_loop(), backend.prepare
    passes: list[list[int]] = []

    def cancelling(rows: Sequence[Tokens]) -> Sequence[Tokens]:
        passes.append(sorted(row.ids[0] for row in rows))
        if len(rows) == 3:
            asyncio.run_coroutine_threadsafe(cancelled(calls[2]), loop).result(5)
        return prepare(rows)

    async def cancelled(call: asyncio.Task[Any]) -> None:
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    backend.prepare = cancelling  # type: ignore[method-assign]
    backend.gate.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    await first
    assert isinstance(outcomes[2], asyncio.CancelledError)
    assert [12, 13, 14] in passes
    assert not any(14 in rows for rows in passes if len(rows) < 3)


async def test_a_poison_row_fails_nobody_elses_request(start: Start) -> None:
    backend = DummyBackend(poison=lambda row: row.ids[0] == 13)
    batcher, first = await held(start, backend)
    calls = [asyncio.ensure_future(batcher.submit([words(4, first=index)])) for index in range(32)]
    await asyncio.sleep(0)
    backend.gate.set()
    outcomes = [outcome for (outcome,) in await asyncio.gather(*calls)]
    assert [isinstance(outcome, AisleError) for outcome in outcomes] == [index == 13 for index in range(32)]
    await first


async def test_a_row_that_the_backend_gives_up_on_fails_alone(start: Start) -> None:
    class Picky(DummyBackend):
        def finish(self, prepared: Sequence[Tokens], raw: Sequence[Any]) -> Sequence[Any]:
            return [
                InternalError("not finite") if row.ids[0] == 2 else answer
                for row, answer in zip(prepared, raw, strict=True)
            ]

    backend = Picky()
    batcher = await start(backend)
    outcomes = await batcher.submit([words(4, first=index) for index in range(4)])
    assert [isinstance(outcome, InternalError) for outcome in outcomes] == [False, False, True, False]
    assert backend.batches == [4]


async def test_a_backend_that_loses_rows_is_found_out(start: Start) -> None:
    class Lossy(DummyBackend):
        def finish(self, prepared: Sequence[Tokens], raw: Sequence[Any]) -> Sequence[Any]:
            return raw[:-1]

    outcomes = await (await start(Lossy())).submit([words(1), words(2)])
    assert all(isinstance(outcome, InternalError) for outcome in outcomes)


async def test_work_of_a_cancelled_caller_is_not_run(start: Start) -> None:
    backend, recorder = DummyBackend(), Recorder()
    batcher, first = await held(start, backend, observer=recorder)
    unwanted = asyncio.ensure_future(batcher.submit([words(5), words(6)]))
    wanted = asyncio.ensure_future(batcher.submit([words(7)]))
    await asyncio.sleep(0)
    unwanted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unwanted
    backend.gate.set()
    await asyncio.gather(first, wanted)
    assert sorted(map(len, backend.seen)) == [1, 7]
    assert recorder.dropped_rows == [("cancelled", 2)]


async def test_expired_work_is_not_run_and_its_caller_is_told_at_the_deadline(start: Start) -> None:
    backend, recorder = DummyBackend(), Recorder()
    batcher, first = await held(start, backend, observer=recorder)
    late = asyncio.ensure_future(batcher.submit([words(5)], deadline=time.monotonic() + 0.02))
    (outcome,) = await late
    assert isinstance(outcome, DeadlineError)
    assert not backend.gate.is_set(), "the caller did not have to wait for the thread"
    backend.gate.set()
    await first
    assert list(map(len, backend.seen)) == [1]
    assert recorder.dropped_rows == [("deadline", 1)]


@pytest.mark.parametrize("priority", Priority)
async def test_rows_that_are_withdrawn_are_no_longer_told_as_waiting(start: Start, priority: Priority) -> None:
    backend, recorder = DummyBackend(), Recorder()
    batcher, first = await held(start, backend, observer=recorder)
    unwanted = asyncio.ensure_future(batcher.submit([words(5), words(6)], priority=priority))
    late = asyncio.ensure_future(batcher.submit([words(7)], priority=priority, deadline=time.monotonic() + 0.1))
    await asyncio.sleep(0)
    assert recorder.depths[-1] == (priority, 3)
    unwanted.cancel()
    await late
    assert recorder.depths[-2:] == [(priority, 1), (priority, 0)]
    backend.gate.set()
    await first


async def test_the_depth_told_last_is_the_latest(start: Start) -> None:
    class Slow(Recorder):
        def queue_depth(self, priority: Priority, rows: int) -> None:
            if rows:
                time.sleep(0.05)
            super().queue_depth(priority, rows)

    recorder = Slow()
    await (await start(DummyBackend(), observer=recorder)).submit([words(3)])
    assert [rows for priority, rows in recorder.depths if priority is Priority.INTERACTIVE] == [1, 0]


async def test_a_deadline_in_the_past_is_refused_at_the_door(start: Start) -> None:
    backend = DummyBackend()
    batcher = await start(backend)
    with pytest.raises(DeadlineError):
        await batcher.submit([words(5)], deadline=time.monotonic() - 1)
    assert not backend.seen


async def test_work_that_even_the_fastest_pass_cannot_finish_in_time_is_not_run(start: Start) -> None:
    backend = DummyBackend(delay_s=0.2)
    batcher = await start(backend)
    await batcher.submit([words(3)])
    (outcome,) = await batcher.submit([words(5)], deadline=time.monotonic() + 0.1)
    assert isinstance(outcome, DeadlineError)
    assert list(map(len, backend.seen)) == [3]


async def test_what_is_done_by_the_deadline_is_returned(start: Start) -> None:
    backend = DummyBackend()
    batcher = await start(backend, Limits(batch_rows=1))
    counted = threading.Semaphore(2)
    run = backend.run

    def run_two(prepared: Any) -> Any:
        if not counted.acquire(blocking=False):
            backend.gate.clear()
        return run(prepared)

    backend.run = run_two  # type: ignore[method-assign]
    outcomes = await batcher.submit([words(4, index) for index in range(5)], deadline=time.monotonic() + 0.3)
    assert [isinstance(outcome, DeadlineError) for outcome in outcomes] == [False, False, True, True, True]
    backend.gate.set()


async def test_interactive_work_overtakes_bulk_that_came_first(start: Start) -> None:
    backend = DummyBackend()
    batcher, first = await held(start, backend)
    bulk = [asyncio.ensure_future(batcher.submit([words(5)], priority=Priority.BULK)) for _ in range(40)]
    await asyncio.sleep(0)
    shopper = asyncio.ensure_future(batcher.submit([words(7)]))
    await asyncio.sleep(0)
    backend.gate.set()
    await asyncio.gather(first, shopper, *bulk)
    assert list(map(len, backend.seen))[:2] == [1, 7]


async def test_bulk_is_served_under_a_flood_of_interactive_work(start: Start) -> None:
    batcher = await start(DummyBackend(delay_s=0.001), Limits(batch_rows=4))
    flooding = True

    async def flood() -> None:
        while flooding:
            await batcher.submit([words(4)])

    floods = [asyncio.ensure_future(flood()) for _ in range(32)]
    await asyncio.sleep(0.01)
    await batcher.submit([words(4) for _ in range(40)], priority=Priority.BULK)
    flooding = False
    await asyncio.gather(*floods)


async def test_bulk_batches_are_short_while_interactive_callers_are_around(start: Start) -> None:
    backend = DummyBackend(delay_s=0.01)
    batcher = await start(backend, timing=Timing(bulk_slice_s=0.02))
    await batcher.submit([words(4)])
    await batcher.submit([words(1)] * 100, priority=Priority.BULK)
    assert max(backend.batches) < 100
    quiet = DummyBackend()
    await (await start(quiet)).submit([words(1)] * 100, priority=Priority.BULK)
    assert quiet.batches == [100]


async def test_a_single_request_to_an_idle_server_is_run_at_once(start: Start) -> None:
    """No timer stands between an idle batcher and its work: nothing but the thread's wake-up."""
    backend = DummyBackend()
    batcher = await start(backend)
    for _ in range(20):
        await batcher.submit([words(3)])
    assert backend.batches == [1] * 20


async def test_requests_that_arrive_during_a_pass_share_the_next(start: Start) -> None:
    backend, recorder = DummyBackend(), Recorder()
    batcher, first = await held(start, backend, observer=recorder)
    calls = [asyncio.ensure_future(batcher.submit([words(4 + index % 2, index)])) for index in range(20)]
    await asyncio.sleep(0)
    backend.gate.set()
    await asyncio.gather(first, *calls)
    assert backend.batches == [1, 20]
    assert recorder.batches[1] == (20, 90, pytest.approx(0.1))


async def test_a_stalled_backend_turns_health_off_and_on(start: Start) -> None:
    backend = DummyBackend()
    batcher = await start(backend, timing=Timing(stall_after_s=0.05, check_every_s=0.01))
    told: list[Health] = []
    batcher.on_health(told.append)
    assert batcher.health.ok
    backend.gate.clear()
    call = asyncio.ensure_future(batcher.submit([words(3)]))
    await until(lambda: bool(told))
    assert not told[0].ok
    assert "forward pass" in told[0].reason
    assert not batcher.health.ok
    backend.gate.set()
    await call
    await until(lambda: len(told) == 2)
    assert told[1].ok
    assert batcher.health.ok


async def test_a_listener_that_fails_does_not_end_the_watchdog(start: Start) -> None:
    backend = DummyBackend()
    batcher = await start(backend, timing=Timing(stall_after_s=0.02, check_every_s=0.01))
    told: list[bool] = []

    def listen(health: Health) -> None:
        told.append(health.ok)
        raise RuntimeError("listener")

    batcher.on_health(listen)
    backend.gate.clear()
    call = asyncio.ensure_future(batcher.submit([words(3)]))
    await until(lambda: told == [False])
    backend.gate.set()
    await call
    await until(lambda: told == [False, True])


async def test_a_bug_in_the_engine_is_not_silence(start: Start) -> None:
    class Broken(NoObserver):
        def queue_wait(self, priority: Priority, seconds: float) -> None:
            raise RuntimeError("engine bug")

    batcher = await start(DummyBackend(), observer=Broken())
    with pytest.raises(UnavailableError):
        await batcher.submit([words(3)])
    assert not batcher.health.ok
    assert "RuntimeError" in batcher.health.reason
    with pytest.raises(UnavailableError):
        await batcher.submit([words(3)])


async def test_drain_finishes_what_was_let_in_and_refuses_the_rest(start: Start) -> None:
    backend = DummyBackend()
    batcher, first = await held(start, backend)
    waiting = asyncio.ensure_future(batcher.submit([words(5)]))
    await asyncio.sleep(0)
    draining = asyncio.ensure_future(batcher.drain(timeout_s=5))
    await asyncio.sleep(0)
    assert not batcher.health.ok
    with pytest.raises(UnavailableError) as refusal:
        await batcher.submit([words(6)])
    assert refusal.value.reason == "DRAINING"
    backend.gate.set()
    assert await draining
    assert first.done()
    assert len(await waiting) == 1


async def test_drain_gives_up_at_its_timeout_and_close_fails_the_rest(start: Start) -> None:
    backend = DummyBackend()
    batcher, first = await held(start, backend)
    waiting = asyncio.ensure_future(batcher.submit([words(5)]))
    await asyncio.sleep(0)
    assert not await batcher.drain(timeout_s=0.02)
    closing = asyncio.ensure_future(batcher.close())
    for call in (first, waiting):
        with pytest.raises(UnavailableError):
            await call
    backend.gate.set()
    await closing
    assert not batcher._thread.is_alive()
    await batcher.close()


async def test_work_before_start_is_refused() -> None:
    from shared.inference import Batcher

    batcher: Batcher[Tokens, Any] = Batcher(DummyBackend())
    assert not batcher.health.ok
    with pytest.raises(UnavailableError, match="not running"):
        await batcher.submit([words(3)])
