"""`sample`: a judged set made from the bundled catalogue, for trying the trainer without data of one's own.

Nobody judged anything here: grades follow from the catalogue's own categories and tags. It shows that the jobs work,
and says nothing about how good a model is for real shoppers.
"""

import argparse
import csv
import logging
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from shared.catalogue import write_jsonl
from shared.catalogue.generator import generate
from shared.items import Item

log = logging.getLogger(__name__)

HELP = "write a small made-up judged set (catalogue.jsonl, judgements.csv) from the bundled catalogue"
_MOST_A_GRADE = 6
"""Judged items a query and grade; a person would not look at more either."""
_SEED = 11


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--items", type=int, default=1_000, help="of the bundled catalogue (default %(default)s)")
    parser.add_argument("--queries", type=int, default=400, help="at most (default %(default)s)")


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    items = [item for item in generate(arguments.items) if not item.language_code.startswith("zh")]
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_jsonl(items, arguments.out / "catalogue.jsonl")
    rows = list(judge(items, arguments.queries))
    with (arguments.out / "judgements.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("query", "item_id", "grade"), *rows])
    log.info("%s items and %s made-up judgements in %s", f"{len(items):,}", f"{len(rows):,}", arguments.out)
    return 0


def judge(items: Sequence[Item], most_queries: int) -> Iterator[tuple[str, str, int]]:
    """(query, item id, grade) for queries of a tag and a category, as in "waterproof dog beds".

    3: of the category and with the tag. 2: of the category. 1: of a neighbouring category. 0: a random other item.
    """
    chance = random.Random(_SEED)
    shelves: dict[Sequence[str], list[Item]] = defaultdict(list)
    for item in items:
        shelves[tuple(item.category_path)].append(item)
    wishes = sorted({(tag, path) for path, shelf in shelves.items() for item in shelf for tag in item.tags})
    chance.shuffle(wishes)
    for tag, path in wishes[:most_queries]:
        shelf = shelves[path]
        neighbours = [item for other, found in shelves.items() if other[:-1] == path[:-1] != () for item in found]
        by_grade = {
            3: [item for item in shelf if tag in item.tags],
            2: [item for item in shelf if tag not in item.tags],
            1: [item for item in neighbours if item.category_path[-1] != path[-1]],
            0: [item for item in chance.sample(list(items), _MOST_A_GRADE) if item.category_path[:1] != path[:1]],
        }
        for grade, found in by_grade.items():
            for item in chance.sample(found, min(len(found), _MOST_A_GRADE)):
                yield f"{tag} {path[-1].lower()}", item.id, grade
