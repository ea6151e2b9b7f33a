"""The departments' files, read and checked. A file looks like this:

    code = "ELE"                         # starts the ids of its items
    path = "Electronics"                 # the root category
    brands = ["Sonvera", "Pelhampton"]   # used by types that name none
    series = ["Drift", "Halo"]           # {series} in texts: what tells a brand's products apart

    [over-ear-headphones]
    in = "Audio > Headphones"            # below `path`; `path` here replaces the whole
    price = [79, 349]                    # USD; nothing of the type costs less or more
    weight = 3                           # how many products the type has beside the others
    vary = "color"                       # the slot in which the variants of a product differ
    title = ["{brand} {series} Over-Ear Headphones {f}, {color}"]
    color = ["Black", "Rose Gold|1.1"]   # a slot: texts; "|1.1" makes it dearer
    battery_h = [30, 40]                 # a slot of numbers; becomes a numeric attribute
    "power_w, _size, @" = [[20, "small", 0.8], [60, "large", 1.3]]   # slots chosen together; "@" is the price factor
    also = { size = ["S", "M", "L"] }    # attributes with all of these values
    # Features: words in the title ("" if none), sentence, tag, and perhaps a group.
    f = [["for Travel", "They fold flat.", "foldable"]]
    intro = ["…"]                        # first sentence of the description; then features, then
    outro = ["…"]                        # the last
    tags = ["headphones"]

Slots are attributes of the item unless their names begin with "_". In any text, `{slot}` is the value and
`{slot.low}` the value in lower case.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

Scalar = str | int | float

_RESERVED = {
    "in", "path", "price", "weight", "vary", "title", "also", "f", "intro", "outro", "tags", "brands", "series",
    "language",
}  # fmt: skip
_DEFAULT_WEIGHT = 3
TITLED = "titled"


class Feature(NamedTuple):
    """Something to say about a product: in its title, in its description, as a tag."""

    phrase: str
    sentence: str
    tag: str
    group: str
    """Features of one group exclude each other: a table has one kind of base. Empty: goes with anything.
    `TITLED`: said in the title or not at all, because a shopper would miss it there ("for Kids", "2-Pack")."""


class Choice(NamedTuple):
    """One value for each name of a slot, and what it does to the price."""

    values: tuple[Scalar, ...]
    factor: float


@dataclass(frozen=True, slots=True)
class Slot:
    """Names that are given their values together."""

    names: tuple[str, ...]
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class ProductType:
    """Everything that can be said about one kind of product."""

    key: str
    code: str
    language: str
    category_path: tuple[str, ...]
    price: tuple[float, float]
    weight: int
    vary: str
    titles: tuple[str, ...]
    brands: tuple[str, ...]
    series: tuple[str, ...]
    slots: tuple[Slot, ...]
    also: Mapping[str, tuple[str, ...]]
    features: tuple[Feature, ...]
    intros: tuple[str, ...]
    outros: tuple[str, ...]
    tags: tuple[str, ...]


def product_types() -> Iterator[ProductType]:
    """Every product type of every department, in a fixed order."""
    folder = resources.files(__package__) / "data"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".toml"):
            department = tomllib.loads(file.read_text("utf-8"))
            types = {key: value for key, value in department.items() if isinstance(value, dict)}
            for key, entry in types.items():
                yield _product_type(key, entry, department)


def _product_type(key: str, entry: Mapping[str, object], department: Mapping[str, object]) -> ProductType:
    def texts(name: str) -> tuple[str, ...]:
        return _texts(entry.get(name, department.get(name, ())))

    path = str(entry.get("path") or f"{department['path']} > {entry['in']}")
    low, high = _numbers(entry["price"])
    slots = tuple(_slot(n, v) for n, v in entry.items() if n not in _RESERVED)
    vary = str(entry.get("vary", ""))
    if vary and not any(vary in slot.names for slot in slots):
        raise ValueError(f"{key}: varies in {vary!r}, which is not one of its slots")
    also = entry.get("also", {})
    return ProductType(
        key=key,
        code=str(department["code"]),
        language=str(department.get("language", "en")),
        category_path=tuple(part.strip() for part in path.split(">")),
        price=(low, high),
        weight=int(str(entry.get("weight", department.get("weight", _DEFAULT_WEIGHT)))),
        vary=vary,
        titles=texts("title"),
        brands=texts("brands"),
        series=texts("series") or ("",),
        slots=slots,
        also={str(n): _texts(v) for n, v in also.items()} if isinstance(also, dict) else {},
        features=tuple(_feature(f) for f in _sequence(entry["f"])),
        intros=texts("intro"),
        outros=texts("outro"),
        tags=texts("tags"),
    )


def _slot(names: str, content: object) -> Slot:
    columns = [name.strip() for name in names.split(",")]
    choices = []
    for row in _sequence(content):
        values = dict(zip(columns, _sequence(row) if len(columns) > 1 else [row], strict=True))
        factor = float(str(values.pop("@", 1.0)))
        if len(columns) == 1 and isinstance(row, str) and "|" in row:
            value, _, by = row.partition("|")
            values, factor = {columns[0]: value}, float(by)
        choices.append(Choice(tuple(_scalar(v) for v in values.values()), factor))
    return Slot(tuple(name for name in columns if name != "@"), tuple(choices))


def _feature(content: object) -> Feature:
    parts = [str(part) for part in _sequence(content)]
    return Feature(*parts, *[""] * (4 - len(parts)))


def _scalar(value: object) -> Scalar:
    return value if isinstance(value, (int, float)) else str(value)


def _sequence(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r}")
    return value


def _texts(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(v) for v in value or ())  # type: ignore[attr-defined]


def _numbers(value: object) -> tuple[float, float]:
    low, high = (float(str(v)) for v in _sequence(value))
    return low, high
