import polars as pl
import pytest

from services.trainer.errors import JobError
from services.trainer.prepare.splits import check_splits, leaks, split_by_query, without_leaks

SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}


def rows(*keys: str) -> pl.DataFrame:
    return pl.DataFrame(
        {"key": keys, "query": keys, "item_id": [str(at) for at in range(len(keys))], "grade": [1.0] * len(keys)}
    )


def test_a_query_stands_in_one_split_whole() -> None:
    every = rows(*[f"q{at // 3}" for at in range(3_000)])
    splits = split_by_query(every, SHARES, seed=0)
    assert sum(part.height for part in splits.values()) == every.height
    assert not leaks(splits)
    assert 0.75 < splits["train"].height / every.height < 0.85
    check_splits(splits)


def test_new_data_moves_no_old_query() -> None:
    old = split_by_query(rows(*[f"q{at}" for at in range(100)]), SHARES, seed=0)
    new = split_by_query(rows(*[f"q{at}" for at in range(200)]), SHARES, seed=0)
    for name, part in old.items():
        assert set(part["key"]) <= set(new[name]["key"])


def test_the_seed_decides() -> None:
    every = rows(*[f"q{at}" for at in range(100)])
    first, again, other = (set(split_by_query(every, SHARES, seed)["test"]["key"]) for seed in (1, 1, 2))
    assert first == again != other


def test_a_leak_ends_the_job() -> None:
    splits = {"train": rows("a", "b"), "valid": rows("c"), "test": rows("b", "d")}
    assert leaks(splits) == {"train and test": ["b"]}
    with pytest.raises(JobError, match=r"1 in train and test.*--drop-leaks"):
        check_splits(splits)


def test_a_leaking_query_can_stay_in_the_later_split() -> None:
    kept, dropped = without_leaks({"train": rows("a", "b", "b"), "valid": rows("b", "c"), "test": rows("c")})
    assert {name: list(part["key"]) for name, part in kept.items()} == {"train": ["a"], "valid": ["b"], "test": ["c"]}
    assert dropped == 3


def test_an_empty_split_ends_the_job() -> None:
    with pytest.raises(JobError, match="nothing is left for test"):
        check_splits({"train": rows("a"), "test": rows()})
