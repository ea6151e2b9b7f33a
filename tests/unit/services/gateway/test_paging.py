import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.paging import PageTokens, fingerprint, next_offset
from shared.errors import InvalidArgumentError

TOKENS = PageTokens(b"key")
OFFSETS = st.integers(0, 1000)


@given(OFFSETS, st.binary(max_size=64))
def test_a_token_says_where_its_page_starts(offset: int, request: bytes) -> None:
    assert TOKENS.read(TOKENS.issue(offset, request), request) == offset


def test_no_token_is_the_first_page() -> None:
    assert TOKENS.read("", b"anything") == 0


@given(OFFSETS, st.binary(max_size=64), st.binary(max_size=64))
def test_a_token_of_another_request_is_refused(offset: int, request: bytes, other: bytes) -> None:
    token = TOKENS.issue(offset, request)
    if request != other:
        with pytest.raises(InvalidArgumentError) as refused:
            TOKENS.read(token, other)
        assert [v.field for v in refused.value.violations] == ["page_token"]


@given(st.text(max_size=40))
def test_what_was_not_issued_is_refused(token: str) -> None:
    if token:
        with pytest.raises(InvalidArgumentError, match="page_token"):
            TOKENS.read(token, b"request")


@given(OFFSETS, st.integers(0, 15), st.sampled_from("ABCxyz019-_"))
def test_a_changed_token_is_refused(offset: int, at: int, letter: str) -> None:
    token = TOKENS.issue(offset, b"request")
    changed = token[:at] + letter + token[at + 1 :]
    if changed != token:
        with pytest.raises(InvalidArgumentError, match="page_token"):
            TOKENS.read(changed, b"request")


def test_replicas_with_one_key_read_each_others_tokens_and_others_do_not() -> None:
    token = PageTokens(b"shared").issue(10, b"request")
    assert PageTokens(b"shared").read(token, b"request") == 10
    with pytest.raises(InvalidArgumentError):
        PageTokens(b"other").read(token, b"request")


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_fingerprints_differ_where_the_parts_do(one: list[bytes], other: list[bytes]) -> None:
    assert (fingerprint(*one) == fingerprint(*other)) == (one == other)


@given(st.integers(0, 60), st.integers(1, 20))
def test_pages_cover_the_list_once(count: int, size: int) -> None:
    results = list(range(count))
    seen: list[int] = []
    offset: int | None = 0
    while offset is not None:
        page = results[offset : offset + size]
        assert page or not count
        seen += page
        offset = next_offset(results, offset, size)
    assert seen == results
