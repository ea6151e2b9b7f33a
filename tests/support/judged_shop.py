"""A prepared set whose words the tiny tokenizer knows: every query names a colour and a thing, as items do."""

from itertools import product
from pathlib import Path

from services.trainer.prepare.job import PrepareOptions, prepare
from services.trainer.prepared import PreparedSet
from shared.catalogue import write_jsonl
from shared.items import Item

COLOURS = ("red", "blue", "green", "black", "white", "pink", "gold", "grey")
THINGS = ("desk", "lamp", "chair", "sofa", "shelf", "bed", "rug", "mug")


def write_files(folder: Path) -> tuple[Path, Path]:
    """A catalogue of 64 items and the judgements of 64 queries."""
    items = [
        Item(id=f"{colour}-{thing}", title=f"{thing} in {colour}", category_path=(thing,))
        for colour, thing in product(COLOURS, THINGS)
    ]
    write_jsonl(items, folder / "catalogue.jsonl")
    rows = ["query,item_id,grade"]
    for at, (colour, thing) in enumerate(product(COLOURS, THINGS)):
        other, stranger = COLOURS[(at + 1) % len(COLOURS)], THINGS[(at + 3) % len(THINGS)]
        judged = {f"{colour}-{thing}": 3, f"{other}-{thing}": 2, f"{other}-{stranger}": 0}
        rows += [f"{colour} {thing},{item},{grade}" for item, grade in judged.items()]
    (folder / "judgements.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "catalogue.jsonl", folder / "judgements.csv"


def make_prepared(folder: Path) -> PreparedSet:
    """The same, prepared: three quarters to train on."""
    catalogue, judgements = write_files(folder)
    shares = {"train": 0.7, "valid": 0.15, "test": 0.15}
    return prepare(PrepareOptions(catalogue, folder / "prepared", judgements=[judgements], shares=shares))
