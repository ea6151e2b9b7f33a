"""MovieLens 100k, as it lies in the wheel of RecBole: 943 people, 1,682 films, 100,000 ratings of 1997 and 1998.

Harper and Konstan, The MovieLens Datasets, 2015; for research. Every rating counts as "took it", whatever the stars.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np

from shared.items import Attribute, Item
from tests.evaluation.datasets.interactions import Dataset, Interactions, Ints, cold_items, fold

WHEEL = "recbole==1.2.1"
INSIDE = "recbole/dataset_example/ml-100k/ml-100k"
COLD_WINDOW = 0.2
"""Share of each user's ratings, the latest, among which new films are looked for: the last one alone is of a new film
for some 90 people only."""


def load(folder: Path) -> Dataset:
    """Reads the set from its wheel in `folder`, where pip puts it first if it is not there.

    Leave-last-out: a user's last rating is the test, the one before it the validation.
    """
    films, ratings = _tables(folder)
    items = [_item(*film) for film in films]
    numbers = {item.id: at for at, item in enumerate(items)}
    user_ids = sorted({rating[0] for rating in ratings}, key=int)
    user_numbers = {user: at for at, user in enumerate(user_ids)}
    everything = Interactions.sorted(
        np.array([user_numbers[rating[0]] for rating in ratings]),
        np.array([numbers[rating[1]] for rating in ratings]),
        np.array([int(float(rating[3])) for rating in ratings]),
    )
    left, count = _left(everything.users), np.bincount(everything.users)
    window = np.ceil(count * COLD_WINDOW)[everything.users]
    shape = (len(user_ids), len(items))
    return Dataset(
        "movielens",
        items,
        user_ids,
        validation=fold(everything.where(left > 1), everything.where(left == 1), *shape),
        test=fold(everything.where(left > 0), everything.where(left == 0), *shape),
        cold=fold(everything.where(left >= window), everything.where(left < window), *shape, cold_items(len(items))),
    )


def _tables(folder: Path) -> tuple[list[list[str]], list[list[str]]]:
    wheels = list(folder.glob("recbole-*.whl"))
    if not wheels:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--dest", str(folder), WHEEL], check=True)
        wheels = list(folder.glob("recbole-*.whl"))
    with zipfile.ZipFile(wheels[0]) as wheel:
        films, ratings = (wheel.read(f"{INSIDE}.{name}").decode().splitlines()[1:] for name in ("item", "inter"))
    return [film.split("\t") for film in films], [rating.split("\t") for rating in ratings]


def _item(number: str, title: str, year: str, genres: str) -> Item:
    named = f"{title} ({year})" if year else title
    return Item(id=number, title=named or "unknown", attributes={"genre": Attribute(text=genres.split())})


def _left(users: Ints) -> Ints:
    """How many interactions of the same user come after each."""
    left = np.empty(len(users), np.int64)
    seen: dict[int, int] = {}
    for at in range(len(users) - 1, -1, -1):
        left[at] = seen.get(users[at], 0)
        seen[users[at]] = left[at] + 1
    return left
