import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway import validation
from shared.errors import FieldViolation, InvalidArgumentError


@pytest.mark.parametrize("text", ["", "\u200b", "\ufeff\u200b \u200b", "\x00\x01"])
def test_queries_that_show_nothing_are_blank(text: str) -> None:
    assert [v.field for v in validation.query_problems(text)] == ["query"]


@pytest.mark.parametrize("text", ["a", "kids bunk bed", "儿童双层床", "é", "x" * 500, "🎧"])
def test_good_queries(text: str) -> None:
    assert validation.query_problems(text) == []


def test_query_over_the_limit() -> None:
    [problem] = validation.query_problems("x" * 501)
    assert problem == FieldViolation("query", "must be at most 500 characters, has 501")


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_counts(page_size: int, candidate_count: int) -> None:
    fields = [v.field for v in validation.page_problems(page_size, candidate_count)]
    assert ("page_size" in fields) == (not 0 <= page_size <= 100)
    assert ("candidate_count" in fields) == (not 0 <= candidate_count <= 1000)


@pytest.mark.parametrize(
    ("value", "fine"), [("", False), ("  ", False), ("a", True), ("é" * 64, True), ("é" * 65, False)]
)
def test_ids(value: str, fine: bool) -> None:
    assert (validation.id_problems(value, "id") == []) is fine


def test_refuse_says_everything_while_it_is_little() -> None:
    validation.refuse([])
    with pytest.raises(InvalidArgumentError) as refused:
        validation.refuse([FieldViolation("a", "is wrong"), FieldViolation("b", "is wrong")])
    assert [v.field for v in refused.value.violations] == ["a", "b"]


def test_refuse_stays_small_enough_for_trailers() -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        validation.refuse([FieldViolation("f" * 10_000, "is wrong")] * 1000)
    assert len(refused.value.violations) == 10
    assert "and 990 more" in refused.value.violations[-1].description
    assert len(refused.value.message) < 2_000
