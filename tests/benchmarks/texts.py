"""Real queries and items where they are at hand, the bundled catalogue's where not."""

import csv
import random
from itertools import islice

from shared.catalogue import read_catalogue
from shared.catalogue.generator import generate
from shared.items import Item
from tests.benchmarks.figures import ROOT

DATA = ROOT.parent / "shared" / "data"


def queries(count: int) -> list[str]:
    """`count` different queries, in an order that has nothing to do with their length."""
    path = DATA / "home_depot" / "qrels_train.csv"
    if path.is_file():
        with path.open(newline="") as file:
            found = list(dict.fromkeys(row["query"] for row in csv.DictReader(file)))
    else:
        found = list(dict.fromkeys(" ".join(item.title.split()[:5]) for item in generate(20_000)))
    random.Random(7).shuffle(found)
    while len(found) < count:
        found += [f"{query} {len(found)}" for query in found]
    return found[:count]


def items(count: int) -> list[Item]:
    """`count` items with titles, attributes and descriptions, as long as shops write them."""
    path = DATA / "amazon_24k" / "products.parquet"
    if not path.is_file():
        return list(generate(count))
    with read_catalogue(path) as reader:
        return [row for row in islice(reader, count + 100) if isinstance(row, Item)][:count]
