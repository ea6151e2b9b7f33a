"""However many rows are refused, and for however many reasons, none is lost from the count and memory stays small."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from shared.catalogue.rejections import MOST_REASONS, OTHER, Rejections

reasons = st.lists(st.tuples(st.integers(0, 80).map(lambda n: f"has {n} cells"), st.integers(1, 99).map(str)))


def counted(rows: list[tuple[str, str]]) -> Rejections:
    result = Rejections()
    for reason, where in rows:
        result.add(reason, where)
    return result


@given(first=reasons, second=reasons)
def test_every_row_is_counted_once(first: list[tuple[str, str]], second: list[tuple[str, str]]) -> None:
    both = counted(first)
    both.update(counted(second))
    assert both.total == len(first) + len(second)
    assert sum(int(line.split()[0]) for line in both.lines()) == both.total
    assert len(both.reasons) <= MOST_REASONS + 1
    assert all(1 <= len(reason.examples) <= 3 for reason in both.reasons.values())
    if len({reason for reason, _ in first + second}) <= MOST_REASONS:
        assert both == counted(first + second)


def test_the_most_frequent_comes_first_with_its_first_examples() -> None:
    found = counted([("a", "line 1"), *(("b", f"line {n}") for n in range(2, 7)), ("c", "line 8"), ("c", "line 9")])
    assert list(found.lines(2)) == [
        "5 × b (line 2, line 3, line 4, …)",
        "2 × c (line 8, line 9)",
        "1 × one of 1 other reasons",
    ]


def test_a_file_in_which_every_row_has_its_own_reason_takes_no_more_than_a_page() -> None:
    found = counted([(f"has {n} cells", f"line {n}") for n in range(100_000)])
    assert found.total == 100_000
    assert found.reasons[OTHER].count == 100_000 - MOST_REASONS
    assert sum(sys.getsizeof(text) for reason in found.reasons.values() for text in reason.examples) < 10_000
