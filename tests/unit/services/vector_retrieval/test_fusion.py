import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vector_retrieval.fusion import (
    Candidate,
    Found,
    Fusion,
    Linear,
    ReciprocalRank,
    Weighted,
    by_vector,
    by_words,
    fuse,
)


def found(*pairs: tuple[str, float]) -> list[Found]:
    return [Found(item_id, score, f"payload of {item_id}") for item_id, score in pairs]


DENSE = found(("a", 0.9), ("b", 0.6), ("c", 0.3))
WORDS = found(("c", 8.0), ("d", 4.0))


def ids(candidates: list[Candidate]) -> list[str]:
    return [candidate.id for candidate in candidates]


def test_reciprocal_rank() -> None:
    fused = fuse(DENSE, WORDS, ReciprocalRank(60))
    assert ids(fused) == ["c", "a", "b", "d"]
    first = fused[0]
    assert first.score == pytest.approx(1 / 63 + 1 / 61)
    assert (first.dense_score, first.dense_rank, first.lexical_score, first.lexical_rank) == (0.3, 3, 8.0, 1)
    assert (fused[1].lexical_score, fused[1].lexical_rank) == (None, None)
    assert (fused[3].dense_score, fused[3].dense_rank) == (None, None)
    assert fused[3].payload == "payload of d"


def test_a_small_k_trusts_the_first_ranks_more() -> None:
    assert ids(fuse(DENSE, WORDS, ReciprocalRank(1)))[0] == "c"
    assert fuse(DENSE, [], ReciprocalRank(1))[0].score == pytest.approx(0.5)


def test_weighted() -> None:
    fused = fuse(DENSE, WORDS, Weighted(dense=0.5, lexical=0.5))
    assert [(c.id, pytest.approx(c.score)) for c in fused] == [
        ("c", 0.5 * 0.3 / 0.9 + 0.5),
        ("a", 0.5),
        ("b", 0.5 * 0.6 / 0.9),
        ("d", 0.25),
    ]


def test_a_half_without_a_positive_score_adds_nothing() -> None:
    fused = fuse(found(("a", -0.1), ("b", -0.2)), WORDS, Weighted(1, 1))
    assert {c.id: c.score for c in fused} == {"c": 1.0, "d": 0.5, "a": 0.0, "b": 0.0}


def test_linear_takes_scores_as_they_are() -> None:
    fused = fuse(DENSE, WORDS, Linear(dense=0.9, lexical=0.1))
    assert {c.id: pytest.approx(c.score) for c in fused} == {
        "c": 0.9 * 0.3 + 0.1 * 8,
        "a": 0.9 * 0.9,
        "b": 0.9 * 0.6,
        "d": 0.1 * 4,
    }


def test_linear_lets_the_last_hit_stand_in_where_a_half_was_cut() -> None:
    fused = fuse(DENSE, WORDS, Linear(dense=1, lexical=1), depth=3)
    # Three hits by vector, as many as asked for: there may be more. Two by words are all there are.
    assert {c.id: pytest.approx(c.score) for c in fused} == {"c": 0.3 + 8, "a": 0.9, "b": 0.6, "d": 0.3 + 4}
    assert {c.id: c.dense_score for c in fused}["d"] is None


def test_ties_go_to_the_better_rank_then_to_the_smaller_id() -> None:
    assert ids(fuse(found(("b", 1.0)), found(("a", 1.0)), ReciprocalRank())) == ["a", "b"]
    assert ids(fuse(found(("z", 1.0), ("a", 1.0)), [], Weighted(1, 0))) == ["z", "a"]


def test_nothing_makes_nothing() -> None:
    assert fuse([], [], ReciprocalRank()) == []


def test_one_half_alone_keeps_its_scores() -> None:
    assert [(c.id, c.score, c.dense_score, c.dense_rank) for c in by_vector(DENSE)][1] == ("b", 0.6, 0.6, 2)
    assert [(c.id, c.score, c.lexical_score, c.lexical_rank) for c in by_words(WORDS)][1] == ("d", 4.0, 4.0, 2)


halves = st.lists(st.sampled_from("abcdefgh"), unique=True).map(
    lambda names: found(*((name, 10.0 - i) for i, name in enumerate(names)))
)


@given(halves, halves, st.sampled_from([ReciprocalRank(), ReciprocalRank(1), Weighted(0.3, 0.7), Linear(0.9, 0.1)]))
def test_every_item_once_and_best_first(dense: list[Found], words: list[Found], how: Fusion) -> None:
    fused = fuse(dense, words, how)
    assert sorted(ids(fused)) == sorted({f.id for f in (*dense, *words)})
    assert [c.score for c in fused] == sorted((c.score for c in fused), reverse=True)
    assert fused == fuse(dense, words, how)
