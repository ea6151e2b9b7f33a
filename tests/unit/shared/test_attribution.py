from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.attribution import MAX_TOKEN_CHARS, Attribution, AttributionTokens

TOKENS = AttributionTokens(b"key")
TEXT = st.text(max_size=60)
ATTRIBUTIONS = st.builds(
    Attribution,
    request_id=TEXT,
    surface=st.sampled_from(["SEARCH", "HOME", "SIMILAR_ITEMS", "BASKET", "AFTER_SEARCH"]),
    query=st.text(max_size=500),
    experiment_arm=TEXT,
    encoder_version=TEXT,
    index_version=TEXT,
    reranker_version=TEXT,
    generation=TEXT,
    candidate_count=st.integers(0, 2**32 - 1),
)
PAGES = st.lists(st.text(min_size=1, max_size=40), max_size=30, unique=True)
TYPICAL = Attribution(
    request_id="0f9a6f0d3f8e4b6f9c6c1f4b7b2a9d10",
    surface="SEARCH",
    query="kids bunk bed with stairs",
    experiment_arm="text-2",
    encoder_version="9f3a1c55e0d2b487",
    index_version="9f3a1c55e0d2b487",
    reranker_version="77d0c1b2a3e4f596",
    generation="items_20261124_122728",
    candidate_count=100,
)


@given(ATTRIBUTIONS, PAGES, st.integers(0, 10_000))
@settings(deadline=None)
def test_a_token_tells_what_was_put_into_it_and_where_each_item_stood(
    attribution: Attribution, page: list[str], first: int
) -> None:
    token = TOKENS.issue(attribution, page, first)
    assert TOKENS.read(token) == attribution
    for index, item_id in enumerate(page):
        assert TOKENS.read(token, item_id) == replace(attribution, position=first + index)


def test_an_item_that_was_not_shown_has_no_position() -> None:
    assert TOKENS.read(TOKENS.issue(TYPICAL, ["a", "b"], 10), "c") == TYPICAL


def test_of_an_item_shown_twice_the_first_place_counts() -> None:
    found = TOKENS.read(TOKENS.issue(TYPICAL, ["a", "b", "a"]), "a")
    assert found is not None
    assert found.position == 0


@given(ATTRIBUTIONS, PAGES, st.data())
def test_a_token_with_any_change_is_not_read(attribution: Attribution, page: list[str], data: st.DataObject) -> None:
    token = TOKENS.issue(attribution, page)
    at = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters(codec="utf-8").filter(lambda c: c != token[at]))
    assert TOKENS.read(token[:at] + letter + token[at + 1 :]) is None
    assert TOKENS.read(token[:at]) is None
    assert TOKENS.read(token + letter) is None


@given(st.text(max_size=200))
def test_what_was_not_issued_is_not_read(text: str) -> None:
    assert TOKENS.read(text) is None


def test_a_token_of_another_key_is_not_read() -> None:
    assert AttributionTokens(b"other").read(TOKENS.issue(TYPICAL, ["a"])) is None


def test_a_page_of_ten_takes_less_than_a_kilobyte() -> None:
    token = TOKENS.issue(TYPICAL, [f"sku-{number}" for number in range(10)])
    assert 250 <= len(token) <= 350


@pytest.mark.parametrize("letter", ["x", "漢", "🛏"])
def test_the_longest_token_can_be_read(letter: str) -> None:
    # Of different letters, which compress badly.
    query = "".join(chr(ord(letter) + index % 50 * 7) for index in range(500))
    longest = replace(TYPICAL, request_id="r" * 128, query=query)
    token = TOKENS.issue(longest, [f"sku-{number}" for number in range(100)], 900)
    assert len(token) <= MAX_TOKEN_CHARS
    assert TOKENS.read(token, "sku-7") == replace(longest, position=907)
