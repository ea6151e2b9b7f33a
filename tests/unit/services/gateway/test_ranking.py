from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.ports import Candidate
from services.gateway.ranking import rank, unranked
from tests.unit.services.gateway.fakes import candidates

FINITE = st.floats(-1e6, 1e6)
RETRIEVAL = st.lists(FINITE, max_size=30).map(lambda scores: sorted(scores, reverse=True))


@st.composite
def rankings(draw: st.DrawFn) -> tuple[list[Candidate], list[float | None], float]:
    found = [Candidate(str(at), at, score) for at, score in enumerate(draw(RETRIEVAL))]
    covered = draw(st.integers(0, len(found)))
    scores = draw(st.lists(st.none() | FINITE, min_size=covered, max_size=covered))
    return found, scores, draw(st.floats(0, 1))


@given(rankings())
def test_the_order_is_a_permutation_with_scores_that_never_rise(
    case: tuple[list[Candidate], list[float | None], float],
) -> None:
    found, scores, weight = case
    ranked = rank(found, scores, weight)
    assert sorted(r.candidate.item for r in ranked) == [c.item for c in found]  # type: ignore[type-var]
    assert all(a.score >= b.score for a, b in pairwise(ranked))


@given(rankings())
def test_the_unscored_follow_the_scored_in_the_index_order(
    case: tuple[list[Candidate], list[float | None], float],
) -> None:
    found, scores, weight = case
    ranked = rank(found, scores, weight)
    scored = sum(score is not None for score in scores)
    assert all(r.rerank_score is not None for r in ranked[:scored])
    tail = [r.candidate.item for r in ranked[scored:]]
    assert tail == [c.item for at, c in enumerate(found) if at >= len(scores) or scores[at] is None]


@given(rankings())
def test_full_weight_is_the_rerankers_order_and_none_is_the_indexs(
    case: tuple[list[Candidate], list[float | None], float],
) -> None:
    found, scores, _ = case
    only_rerank = [r.rerank_score for r in rank(found, scores, 1.0) if r.rerank_score is not None]
    # Scaling may round two scores of nearly one value to the same number, which then keep the index's order.
    span = max(only_rerank, default=0) - min(only_rerank, default=0)
    assert all(a >= b - 1e-9 * max(span, 1) for a, b in pairwise(only_rerank))
    order = [r.candidate.item for r in rank(found, [0.0] * len(scores), 0.0)]
    assert order == [c.item for c in found]


def test_the_blend() -> None:
    found = candidates(3)
    ranked = rank(found, [0.0, 10.0, 5.0], 0.75)
    assert [r.candidate.item for r in ranked] == ["item-1", "item-2", "item-0"]
    assert [r.score for r in ranked] == pytest.approx([1 + 0.75 + 0.125, 1 + 0.375 + 0, 1 + 0 + 0.25])


def test_one_candidate_and_equal_scores_count_as_best() -> None:
    assert [r.score for r in rank(candidates(1), [3.0], 0.5)] == [2.0]
    assert [r.candidate.item for r in rank(candidates(3), [1.0, 1.0, 1.0], 1.0)] == ["item-0", "item-1", "item-2"]


def test_nothing_to_rank() -> None:
    assert rank([], [], 0.5) == []


def test_without_a_reranker_scores_are_the_indexs() -> None:
    assert [(r.score, r.rerank_score) for r in unranked(candidates(2))] == [(1.0, None), (0.99, None)]
