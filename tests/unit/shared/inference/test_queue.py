import math
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.inference.queue import ALIKE, Limits, Priority, Work, WorkQueue

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK
LIMITS = Limits(rows=64, bulk_rows=64, batch_rows=16, batch_tokens=256)


def work(size: int = 8, priority: Priority = INTERACTIVE, at: float = 0.0, deadline: float = math.inf) -> Work:
    return Work(size=size, priority=priority, queued_at=at, deadline=deadline)


def filled(works: list[Work], limits: Limits = LIMITS) -> WorkQueue[Work]:
    queue: WorkQueue[Work] = WorkQueue(limits)
    for one in works:
        queue.offer([one])
    return queue


works = st.builds(
    work,
    size=st.integers(1, 300),
    priority=st.sampled_from(Priority),
    at=st.just(0.0),
    deadline=st.one_of(st.just(math.inf), st.floats(0, 2)),
)


@given(st.lists(works, max_size=60), st.sets(st.integers(0, 59)))
def test_every_row_leaves_exactly_once(rows: list[Work], withdrawn: set[int]) -> None:
    queue = filled(rows)
    gone = [row for index, row in enumerate(rows) if index in withdrawn]
    assert queue.withdraw(gone) == len(gone)
    taken, expired = [], []
    while len(queue):
        batch, late = queue.take(1.0)
        taken += batch
        expired += late
        assert batch or late
    assert sorted(map(id, [*taken, *expired, *gone])) == sorted(map(id, rows))
    assert all(row.deadline <= 1.0 for row in expired)
    assert all(row.deadline > 1.0 for row in taken)
    assert queue.tokens(BULK) == 0


@given(st.lists(works, min_size=1, max_size=60))
def test_a_batch_keeps_its_bounds_and_holds_the_oldest_of_its_class(rows: list[Work]) -> None:
    queue = filled(rows)
    waiting = list(rows)
    while len(queue):
        batch, late = queue.take(1.0)
        for row in [*late, *batch]:
            waiting.remove(row)
        if not batch:
            continue
        assert len({row.priority for row in batch}) == 1
        assert len(batch) == 1 or len(batch) * max(row.size for row in batch) <= LIMITS.batch_tokens
        assert len(batch) <= LIMITS.batch_rows
        alive = [row for row in rows if row.priority is batch[0].priority and row.deadline > 1.0]
        assert rows.index(batch[0]) == min(rows.index(row) for row in alive if row in waiting or row in batch)


@given(st.lists(st.integers(1, 200), min_size=2, max_size=60))
def test_lengths_are_kept_together(sizes: list[int]) -> None:
    queue = filled([work(size) for size in sizes])
    while len(queue):
        lengths = [row.size for row in queue.take(0.0).batch]
        assert max(lengths) - min(lengths) <= max(ALIKE, LIMITS.padding * max(lengths))


def test_rows_over_the_age_bound_are_chosen_oldest_first_among_those_alike() -> None:
    limits = Limits(batch_tokens=60, max_age_s=1.0)
    rows = [work(20), work(28), work(200), work(20), work(20, at=4.5)]
    queue = filled(rows, limits)
    # The older one goes though a younger one is more like the first.
    assert queue.take(5.0).batch == rows[:2]


def test_an_old_row_of_another_length_leads_the_next_batch_instead_of_padding_this_one() -> None:
    rows = [work(8), work(200), work(8)]
    queue = filled(rows, Limits(batch_tokens=600, max_age_s=1.0))
    assert queue.take(5.0).batch == [rows[0], rows[2]]
    assert queue.take(5.0).batch == [rows[1]]


def test_interactive_goes_before_bulk() -> None:
    queue = filled([work(priority=BULK), work(priority=BULK), work()])
    assert [row.priority for row in queue.take(0.0).batch] == [INTERACTIVE]
    assert [row.priority for row in queue.take(0.0).batch] == [BULK, BULK]


@given(st.lists(st.integers(1, 64), min_size=200, max_size=200), st.sampled_from([0.05, 0.1, 0.3]))
def test_bulk_gets_its_share_however_much_interactive_work_there_is(sizes: list[int], share: float) -> None:
    queue: WorkQueue[Work] = WorkQueue(Limits(batch_tokens=128, bulk_share=share))
    sizes_left = iter(sizes)
    served = {INTERACTIVE: 0, BULK: 0}
    for _ in range(80):
        for priority in Priority:
            while queue.rows(priority) < 20:
                queue.offer([work(next(sizes_left, 16), priority)])
        batch = queue.take(0.0, bulk_tokens=64).batch
        served[batch[0].priority] += sum(row.size for row in batch)
    total = sum(served.values())
    assert served[BULK] >= share * total - 128
    assert served[INTERACTIVE] >= (1 - share) * total - 128


def test_credit_is_not_saved_up_while_no_bulk_waits() -> None:
    queue: WorkQueue[Work] = WorkQueue(LIMITS)
    for _ in range(50):
        queue.offer([work(64)])
        queue.take(0.0)
    queue.offer([work(8, BULK)])
    queue.offer([work(8)])
    assert queue.take(0.0).batch[0].priority is INTERACTIVE


def test_a_bulk_batch_can_be_kept_short() -> None:
    queue = filled([work(8, BULK) for _ in range(10)])
    assert len(queue.take(0.0, bulk_tokens=24).batch) == 3
    assert len(queue.take(0.0).batch) == 7


def test_full_means_all_or_nothing() -> None:
    queue: WorkQueue[Work] = WorkQueue(Limits(rows=4))
    assert queue.offer([work(), work(), work()])
    assert not queue.offer([work(), work()])
    assert len(queue) == 3
    assert queue.offer([work(priority=BULK)]), "the classes have room of their own"


def test_a_request_larger_than_the_queue_is_let_into_an_empty_one() -> None:
    queue: WorkQueue[Work] = WorkQueue(Limits(rows=4))
    assert queue.offer([work() for _ in range(10)])
    assert not queue.offer([work()])


def test_a_row_longer_than_the_budget_goes_alone() -> None:
    queue = filled([work(1000), work(1000)])
    assert len(queue.take(0.0).batch) == 1


def test_work_that_cannot_be_done_in_time_counts_as_expired() -> None:
    queue = filled([work(deadline=1.0), work(deadline=5.0)])
    batch, expired = queue.take(0.5, least_s=0.6)
    assert [row.deadline for row in expired] == [1.0]
    assert [row.deadline for row in batch] == [5.0]


def test_the_oldest_row_is_known() -> None:
    clock = count()
    queue: WorkQueue[Work] = WorkQueue(LIMITS)
    assert queue.oldest_at() is None
    for priority in (BULK, INTERACTIVE):
        queue.offer([work(priority=priority, at=next(clock))])
    assert queue.oldest_at() == 0


@pytest.mark.parametrize("bad", [{"rows": 0}, {"batch_tokens": 0}, {"bulk_share": 0.0}, {"bulk_share": 1.0}])
def test_limits_check_themselves(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Limits(**bad)  # type: ignore[arg-type]


def test_room_that_is_kept_counts_as_taken_until_it_is_released() -> None:
    queue: WorkQueue[Work] = WorkQueue(Limits(rows=4, bulk_rows=4))
    assert queue.reserve(INTERACTIVE, 3)
    assert not queue.offer([work(), work()])
    assert not queue.reserve(INTERACTIVE, 2)
    assert queue.offer([work()])
    assert queue.reserve(BULK, 4)
    assert not queue.reserve(INTERACTIVE, 1)
    assert (queue.rows(INTERACTIVE), queue.reserved(INTERACTIVE)) == (1, 3)
    queue.release(INTERACTIVE, 3)
    assert queue.offer([work()] * 3)


def test_more_rows_than_the_limit_have_room_in_an_empty_queue_alone() -> None:
    queue: WorkQueue[Work] = WorkQueue(Limits(rows=4))
    assert queue.reserve(INTERACTIVE, 10)
    assert not queue.offer([work()])
    assert not queue.reserve(INTERACTIVE, 1)
    queue.release(INTERACTIVE, 10)
    assert queue.offer([work() for _ in range(10)])
    assert not queue.reserve(INTERACTIVE, 10)
