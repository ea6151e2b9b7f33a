"""Kinds of queries that a mean hides: short and long, one category or another, popular items or rare ones."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

_WORDS = ((1, "1 word"), (2, "2 words"), (3, "3 words"), (4, "4 words"))
_MORE_WORDS = "5 words or more"
_LEAST_QUERIES = 10
"""A slice of fewer says nothing."""
_MOST_CATEGORIES = 12
_HEAD_SHARE = 0.5
"""Head: the most judged items that together have this share of the training judgements."""


def slices(
    queries: Mapping[str, str],
    relevant: Mapping[str, list[str]],
    categories: Mapping[str, str],
    popularity: Mapping[str, int],
    before: Collection[str] = (),
) -> dict[str, dict[str, list[str]]]:
    """Query keys by slice, by what the slices are of ("length", "category", "popularity", "age").

    `queries`: text by key. `relevant`: relevant items by key. `categories`: by item, "" where there is none.
    `popularity`: training judgements by item. `before`: keys of an earlier set, which is what "age" is about. A way of
    slicing that leaves a single slice is left out.
    """
    found = {
        "length": _by_length(queries),
        "category": _by_category(relevant, categories),
        "popularity": _by_popularity(relevant, popularity),
        "age": _by_age(queries, before),
    }
    kept = {
        kind: {name: keys for name, keys in groups.items() if len(keys) >= _LEAST_QUERIES}
        for kind, groups in found.items()
    }
    return {kind: groups for kind, groups in kept.items() if len(groups) > 1}


def _by_length(queries: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {name: [] for _, name in _WORDS}
    groups[_MORE_WORDS] = []
    names = dict(_WORDS)
    for key, text in queries.items():
        groups[names.get(len(text.split()), _MORE_WORDS)].append(key)
    return groups


def _by_age(queries: Mapping[str, str], before: Collection[str]) -> dict[str, list[str]]:
    known = set(before)
    return {"old": [key for key in queries if key in known], "new": [key for key in queries if key not in known]}


def _by_category(relevant: Mapping[str, list[str]], categories: Mapping[str, str]) -> dict[str, list[str]]:
    """A query belongs to the category that most of its relevant items are in."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key, items in relevant.items():
        counts = Counter(category for item in items if (category := categories.get(item, "")))
        if counts:
            groups[counts.most_common(1)[0][0]].append(key)
    largest = sorted(groups, key=lambda name: (-len(groups[name]), name))[:_MOST_CATEGORIES]
    return {name: groups[name] for name in largest}


def _by_popularity(relevant: Mapping[str, list[str]], popularity: Mapping[str, int]) -> dict[str, list[str]]:
    """Head, tail or unseen, by the most popular relevant item of the query."""
    head: set[str] = set()
    left = sum(popularity.values()) * _HEAD_SHARE
    for item in sorted(popularity, key=lambda each: (-popularity[each], each)):
        if left <= 0:
            break
        head.add(item)
        left -= popularity[item]
    groups: dict[str, list[str]] = {"head": [], "tail": [], "not in training": []}
    for key, items in relevant.items():
        seen = [item for item in items if popularity.get(item)]
        name = "head" if head.intersection(seen) else "tail" if seen else "not in training"
        groups[name].append(key)
    return groups
