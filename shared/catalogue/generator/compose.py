"""Product types → items. One random stream a product, so that more items never change the earlier ones."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import exp, log
from random import Random

from shared.catalogue.generator.vocabulary import (
    TITLED,
    Choice,
    Feature,
    ProductType,
    Scalar,
    Slot,
    product_types,
)
from shared.items import MICROS_PER_UNIT, Attribute, Item, Money

DEFAULT_ITEMS = 4_000
DEFAULT_SEED = 7

_SNAPSHOT = datetime(2026, 3, 1, 6, 0, tzinfo=UTC)
"""The day of the export: fixed, because today's date would make two runs differ."""
_SHOP = "https://shop.example"
_VARIANTS = (1, 2, 3, 4)
_VARIANT_WEIGHTS = (22, 30, 30, 18)
_ATTEMPTS = 3
"""How often a product is drawn again when its title is taken. Past a hundred thousand items some must repeat."""
_FACTOR_SHARE = 0.75
"""How much of a type's range of prices its factors may use up between them."""
_CENT = MICROS_PER_UNIT // 100
_ARTICLE = re.compile(r"(?<![\w-])([Aa]) (?=8|11\b|18\b|(?!one|once|eu)[aeio]|u(?:n(?!i)|l|m|p))", re.IGNORECASE)
"""An "a" that a slot's value has made an "an": an oak table, an 8-inch knife, but a USB lamp and a unisex coat."""


class Word(str):
    """A value in a text; `{color.low}` writes it inside a sentence."""

    __slots__ = ()

    @property
    def low(self) -> str:
        """Lower case, save what is spelt in capitals or with digits: "USB-C" stays."""
        return " ".join(w if re.search(r"\d|\b[A-Z]{2}|[a-z][A-Z]", w) else w.lower() for w in self.split(" "))


@dataclass(slots=True)
class _Product:
    """What the variants of a product share."""

    type: ProductType
    id: str
    values: dict[str, Scalar]
    features: list[Feature]
    title: str
    patterns: tuple[str, str]
    factor: float
    """What the choices so far do to the price."""
    luck: float
    """0 to 1: where in the range that the choices leave open the price lies."""
    rating: float | None
    rating_count: int
    popularity: float
    updated_at: datetime


def generate(items: int = DEFAULT_ITEMS, seed: int = DEFAULT_SEED) -> Iterator[Item]:
    """The first `items` items of the catalogue that `seed` makes."""
    types = list(product_types())
    left = items
    titles: set[str] = set()
    for number, kind in enumerate(_dealt(types, seed)):
        if left <= 0:
            return
        for attempt in range(_ATTEMPTS):
            rng = Random(f"{seed}/{number}/{attempt}")  # noqa: S311  # plausible, not secret
            variants = _product_items(kind, number, rng)
            if titles.isdisjoint(v.title for v in variants) or attempt == _ATTEMPTS - 1:
                break
        titles.update(v.title for v in variants)
        yield from variants[:left]
        left -= len(variants)


def _dealt(types: Sequence[ProductType], seed: int) -> Iterator[ProductType]:
    """Types by weight, shuffled in decks: even a short catalogue has something of everything."""
    rng = Random(seed)  # noqa: S311
    while True:
        deck = [kind for kind in types for _ in range(kind.weight)]
        rng.shuffle(deck)
        yield from deck


def _product_items(kind: ProductType, number: int, rng: Random) -> list[Item]:
    product, varying = _product(kind, number, rng)
    if varying is None:
        return [_item(product, rng)]
    wanted = rng.choices(_VARIANTS, _VARIANT_WEIGHTS)[0]
    choices = rng.sample(varying.choices, min(wanted, len(varying.choices)))
    if len(choices) == 1:
        return [_item(_variant(product, varying, choices[0], rng, ""), rng)]
    return [
        replace(_item(_variant(product, varying, choice, rng, f"-{n}"), rng), group_id=product.id)
        for n, choice in enumerate(choices, 1)
    ]


def _product(kind: ProductType, number: int, rng: Random) -> tuple[_Product, Slot | None]:
    values: dict[str, Scalar] = {"brand": rng.choice(kind.brands), "series": rng.choice(kind.series)}
    factor = 1.0
    varying = None
    for slot in kind.slots:
        if kind.vary in slot.names:
            varying = slot
            continue
        choice = rng.choice(slot.choices)
        values.update(zip(slot.names, choice.values, strict=True))
        factor *= choice.factor
    # A brand is dear or cheap throughout a shelf.
    tier = Random(f"{values['brand']}/{kind.key}").uniform(-0.15, 0.15)  # noqa: S311
    popularity = min(8.0 * rng.paretovariate(0.95) * (40 / (kind.price[0] + 20)) ** 0.4, 9_000)
    rating_count = int(popularity * rng.uniform(0.2, 9))
    product = _Product(
        type=kind,
        id=f"{kind.code}-{number + 10_000}",
        values=values,
        features=_features(kind, rng),
        title=rng.choice(kind.titles),
        patterns=(rng.choice(kind.intros), rng.choice(kind.outros)),
        factor=factor,
        luck=min(max(rng.betavariate(2.0, 2.6) + tier, 0.0), 1.0),
        rating=round(min(max(rng.gauss(4.35, 0.33), 2.7), 4.9), 1) if rating_count else None,
        rating_count=rating_count,
        popularity=popularity,
        updated_at=_SNAPSHOT - timedelta(seconds=int(min(rng.expovariate(1 / 40), 400) * 86_400)),
    )
    return product, varying


def _features(kind: ProductType, rng: Random) -> list[Feature]:
    """The one for the title first."""
    titled = [f for f in kind.features if f.phrase]
    first = rng.choice(titled or kind.features)
    chosen = [first]
    wanted = rng.choice((2, 3, 3))
    for feature in rng.sample(kind.features, len(kind.features)):
        taken = {TITLED, *(f.group for f in chosen if f.group)}
        if len(chosen) < wanted and feature not in chosen and feature.group not in taken:
            chosen.append(feature)
    return chosen


def _variant(product: _Product, slot: Slot, choice: Choice, rng: Random, suffix: str) -> _Product:
    return replace(
        product,
        id=product.id + suffix,
        values=product.values | dict(zip(slot.names, choice.values, strict=True)),
        factor=product.factor * choice.factor,
        popularity=product.popularity * rng.uniform(0.25, 1.0),
    )


def _item(product: _Product, rng: Random) -> Item:
    kind = product.type
    words: dict[str, object] = {n: Word(v) if isinstance(v, str) else v for n, v in product.values.items()}
    words["f"] = product.features[0].phrase
    title = _filled(product.title, words)
    intro, outro = product.patterns
    sentences = [intro, *(f.sentence for f in product.features), outro]
    glue = "" if kind.language == "zh" else " "
    return Item(
        id=product.id,
        title=title,
        description=glue.join(_filled(s, words) for s in sentences if s),
        brand=str(product.values["brand"]),
        category_path=kind.category_path,
        price=Money("USD", _shelf_price(_price(product), kind.price, int(product.luck * 1e6))),
        in_stock=rng.random() < 0.93,
        rating=product.rating,
        rating_count=product.rating_count,
        popularity=round(product.popularity, 1),
        tags=_tags(product),
        attributes=_attributes(product),
        language_code=kind.language,
        url=f"{_SHOP}/p/{_slug(title) or kind.key}/{product.id}",
        image_url=f"{_SHOP}/images/{product.id}.jpg",
        updated_at=product.updated_at,
    )


def _filled(pattern: str, words: Mapping[str, object]) -> str:
    result = pattern
    # A slot's own value may name other slots, one level deep.
    for _ in range(2):
        if "{" in result:
            result = result.format_map(words)
    result = re.sub(r"\s+([,.)])", r"\1", re.sub(r"\s{2,}", " ", result)).strip(" ,")
    return _ARTICLE.sub(r"\1n ", result)


def _attributes(product: _Product) -> dict[str, Attribute]:
    found = {
        name: Attribute((value,)) if isinstance(value, str) else Attribute((), (float(value),))
        for name, value in product.values.items()
        if value != "" and not name.startswith("_") and name not in ("brand", "series")
    }
    found |= {name: Attribute(values) for name, values in product.type.also.items()}
    features = tuple(f.tag for f in product.features if f.tag)
    return found | ({"features": Attribute(features)} if features else {})


def _tags(product: _Product) -> tuple[str, ...]:
    chinese = product.type.language == "zh"
    tags = [*product.type.tags, *(f.tag for f in product.features if f.tag)]
    if product.popularity > 150 and (product.rating or 0) >= 4.2:
        tags.append("热卖" if chinese else "bestseller")
    if product.rating_count < 5 and _SNAPSHOT - product.updated_at < timedelta(days=30):
        tags.append("新品" if chinese else "new arrival")
    return tuple(dict.fromkeys(tags))


def _price(product: _Product) -> float:
    """The factors say what is dearer than what, and luck spreads the rest, so that the bounds of the type hold
    without many products sitting on them."""
    kind = product.type
    low, high = map(log, kind.price)
    cheapest = sum(log(min(c.factor for c in slot.choices)) for slot in kind.slots)
    dearest = sum(log(max(c.factor for c in slot.choices)) for slot in kind.slots)
    span = dearest - cheapest
    scale = min(1.0, _FACTOR_SHARE * (high - low) / span) if span else 0.0
    return exp(low + scale * (log(product.factor) - cheapest) + (high - low - scale * span) * product.luck)


def _shelf_price(price: float, bounds: tuple[float, float], habit: int) -> int:
    """In micros: a price as shops write it. `habit` picks the ending, the same for all variants of a product."""
    inside = min(max(price, bounds[0]), bounds[1])
    if inside < 25:
        cents = int(inside) * 100 + (99, 99, 99, 49)[habit % 4]
    elif inside < 250:
        cents = int(inside) * 100 + (99, 99, 99, 95, 0)[habit % 5]
    else:
        cents = (int(inside / 10) * 10 + 9) * 100 + (0, 0, 99)[habit % 3]
    return cents * _CENT


def _slug(title: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", title.lower().replace("'", ""))[:8])
