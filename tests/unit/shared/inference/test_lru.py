import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.inference.lru import ENTRY_BYTES, BytesLRU

operations = st.lists(st.tuples(st.sampled_from(["put", "get"]), st.integers(0, 9), st.integers(0, 600)))


@given(operations, st.integers(1, 3000))
def test_it_never_holds_more_than_its_bytes_and_answers_what_was_put(
    steps: list[tuple[str, int, int]], bound: int
) -> None:
    lru: BytesLRU[int, int] = BytesLRU(bound, lambda key, value: value)
    last: dict[int, int] = {}
    for step, key, value in steps:
        if step == "put":
            lru.put(key, value)
            last[key] = value
        else:
            assert lru.get(key) in (None, last.get(key))
        assert lru.bytes <= bound
        held = {key: value for key in last if (value := lru.get(key)) is not None}
        assert lru.bytes == sum(value + ENTRY_BYTES for value in held.values())
        assert len(lru) == len(held)


def test_the_least_recently_used_goes_first() -> None:
    lru: BytesLRU[str, int] = BytesLRU(3 * (ENTRY_BYTES + 10), lambda key, value: 10)
    for key in "abc":
        lru.put(key, 1)
    lru.get("a")
    lru.put("d", 1)
    assert [lru.get(key) for key in "abcd"] == [1, None, 1, 1]


def test_what_is_larger_than_the_whole_map_is_not_kept_and_pushes_nothing_out() -> None:
    lru: BytesLRU[str, int] = BytesLRU(2 * ENTRY_BYTES, lambda key, value: value)
    lru.put("small", 1)
    lru.put("large", 10_000)
    assert lru.get("small") == 1
    assert lru.get("large") is None


def test_less_than_no_room_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        BytesLRU(-1, lambda key, value: 1)


def test_a_bound_of_zero_keeps_nothing() -> None:
    cache: BytesLRU[str, bytes] = BytesLRU(0, lambda key, value: len(value))
    cache.put("a", b"")
    assert cache.get("a") is None
    assert cache.bytes == 0
