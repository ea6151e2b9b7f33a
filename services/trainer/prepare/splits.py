"""Splits by query: all judgements of one query stand in one split, or a model is tested on what it learnt."""

from collections.abc import Mapping
from hashlib import blake2b
from itertools import combinations

import polars as pl

from services.trainer.errors import JobError, TooLittleError
from services.trainer.prepare.judgements import KEY


def split_by_query(rows: pl.DataFrame, shares: Mapping[str, float], seed: int) -> dict[str, pl.DataFrame]:
    """Each query goes to a split by the hash of its key and `seed`, so that new data never moves an old query."""
    keys = rows.get_column(KEY).unique()
    home = pl.DataFrame({KEY: keys, "split": [home_of(key, shares, seed) for key in keys]})
    placed = rows.join(home, on=KEY, how="left", maintain_order="left")
    return {name: placed.filter(pl.col("split") == name).drop("split") for name in shares}


def leaks(splits: Mapping[str, pl.DataFrame]) -> dict[str, list[str]]:
    """Query keys that two splits share, by the names of the two ("train and test"), sorted."""
    keys = {name: set(rows.get_column(KEY)) for name, rows in splits.items()}
    pairs = combinations(splits, 2)
    return {f"{one} and {other}": sorted(shared) for one, other in pairs if (shared := keys[one] & keys[other])}


def without_leaks(splits: dict[str, pl.DataFrame]) -> tuple[dict[str, pl.DataFrame], int]:
    """`splits` where a query that several hold stays in the last of them alone (test before valid before train).

    Also how many judgements that cost.
    """
    kept: dict[str, pl.DataFrame] = {}
    dropped = 0
    taken = pl.Series(KEY, [], dtype=pl.String)
    for name, rows in reversed(splits.items()):
        kept[name] = rows.filter(~pl.col(KEY).is_in(taken.implode()))
        dropped += rows.height - kept[name].height
        taken = pl.concat([taken, rows.get_column(KEY).unique()])
    return {name: kept[name] for name in splits}, dropped


def check_splits(splits: Mapping[str, pl.DataFrame]) -> None:
    """Raises `JobError` when a query stands in two splits, `TooLittleError` when a split is empty."""
    if found := leaks(splits):
        told = "; ".join(f"{len(keys)} in {pair}" for pair, keys in found.items())
        raise JobError(
            f"queries stand in two splits ({told}): a model would be tested on what it learnt. Split by query, or "
            "give --drop-leaks to keep such queries in the later split only"
        )
    if empty := [name for name, rows in splits.items() if rows.is_empty()]:
        raise TooLittleError(f"nothing is left for {', '.join(empty)}: see the reasons above, or change --shares")


def home_of(key: str, shares: Mapping[str, float], seed: int) -> str:
    """The split of a query: of the names of `shares`, each as often as its share says."""
    digest = blake2b(key.encode(), digest_size=8, salt=seed.to_bytes(8, "little")).digest()
    at = int.from_bytes(digest, "little") / 2**64 * sum(shares.values())
    for name, share in shares.items():
        if at < share:
            return name
        at -= share
    return list(shares)[-1]
