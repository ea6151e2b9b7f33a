import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.paging import PageTokens, Rest, fingerprint
from shared.errors import InvalidArgumentError

TOKENS = PageTokens(b"key")
SHOWN = st.integers(0, 1000)
IDS = st.sets(st.text(max_size=8), max_size=40)


def issued(shown: int, ids: set[str], request: bytes = b"request") -> str:
    return TOKENS.issue(shown, map(TOKENS.digest, ids), request)


@given(SHOWN, IDS, st.binary(max_size=64))
def test_a_token_says_what_was_shown_and_what_is_left(shown: int, ids: set[str], request: bytes) -> None:
    rest = TOKENS.read(issued(shown, ids, request), request)
    assert rest == Rest(shown, frozenset(map(TOKENS.digest, ids)))
    assert len(rest.digests) == len(ids)


def test_no_token_is_the_first_page() -> None:
    assert TOKENS.read("", b"anything") is None


@given(SHOWN, IDS, st.binary(max_size=64), st.binary(max_size=64))
def test_a_token_of_another_request_is_refused(shown: int, ids: set[str], request: bytes, other: bytes) -> None:
    token = issued(shown, ids, request)
    if request != other:
        with pytest.raises(InvalidArgumentError) as refused:
            TOKENS.read(token, other)
        assert [v.field for v in refused.value.violations] == ["page_token"]


@given(st.text(max_size=40))
def test_what_was_not_issued_is_refused(token: str) -> None:
    if token:
        with pytest.raises(InvalidArgumentError, match="page_token"):
            TOKENS.read(token, b"request")


@given(SHOWN, IDS, st.integers(0, 300), st.sampled_from("ABCxyz019-_"))
def test_a_changed_token_is_refused(shown: int, ids: set[str], at: int, letter: str) -> None:
    token = issued(shown, ids)
    at %= len(token)
    changed = token[:at] + letter + token[at + 1 :]
    if changed != token:
        with pytest.raises(InvalidArgumentError, match="page_token"):
            TOKENS.read(changed, b"request")


def test_replicas_with_one_key_read_each_others_tokens_and_others_do_not() -> None:
    token = PageTokens(b"shared").issue(10, (), b"request")
    assert PageTokens(b"shared").read(token, b"request") == Rest(10, frozenset())
    with pytest.raises(InvalidArgumentError):
        PageTokens(b"other").read(token, b"request")
    assert PageTokens(b"shared").digest("id") != PageTokens(b"other").digest("id")


def test_a_token_of_the_longest_list_is_small_enough_to_send_along() -> None:
    assert len(issued(10, {str(at) for at in range(90)})) < 1_000
    assert len(issued(10, {str(at) for at in range(990)})) < 8_192


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_fingerprints_differ_where_the_parts_do(one: list[bytes], other: list[bytes]) -> None:
    assert (fingerprint(*one) == fingerprint(*other)) == (one == other)
