"""What to search for in a catalogue: the bundled one's own showcase, or what a shopper might type in a stranger's.

A stranger's catalogue is read while it is loaded: its fullest categories and the word pairs that its titles repeat
("ceiling fan", "shower curtain") are what people there search for.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from shared.items import MICROS_PER_UNIT, Item


@dataclass(frozen=True, slots=True)
class DemoSearch:
    """One search to show. With `like_first`, the items like its best hit are shown too."""

    query: str
    max_price: float | None = None
    """Exclusive, in units of the items' currency."""
    in_stock: bool | None = None
    like_first: bool = False

    @property
    def title(self) -> str:
        """For people, as a shopper would say it."""
        limits = []
        if self.max_price is not None:
            limits.append(f"under {self.max_price:g}")
        if self.in_stock:
            limits.append("in stock")
        return f"{self.query}  [{', '.join(limits)}]" if limits else self.query


SHOWCASE = (
    DemoSearch("headphones that block out airplane noise", like_first=True),
    DemoSearch("kids bunk bed with stairs"),
    DemoSearch("gift for a coffee lover", max_price=100, in_stock=True),
    DemoSearch("无线降噪耳机"),
    DemoSearch("lightweight 2 person tent for backpacking"),
)
"""Searches of the bundled catalogue: by meaning, by words, filtered, in Chinese."""

_SAMPLE = 20_000
"""Titles after which a catalogue's vocabulary hardly changes, and bounds on memory."""
_PRICES = 2_000
_WORD = re.compile(r"[a-z][a-z'-]+", re.IGNORECASE)
_PAIR = re.compile(r"(?<![\w.'-])(?P<first>[a-z][a-z'-]+) (?=(?P<second>[a-z][a-z'-]+)(?![\w.]))", re.IGNORECASE)
"""Two whole words side by side: half of `example.com`, or of `75W`, is none."""
_HAN_CHARS = 8
_CHINESE_SHARE = 0.01
"""Share of titles in Chinese above which shoppers there type it too."""
_HAN_RUN = re.compile(r"[\u4e00-\u9fff]{4,}")
_TITLE_CHARS = 80
"""Of a title that is searched for: longer ones are more than anybody types, and than the gateway takes."""
_STOP_WORDS = """
a an and are as at be by for from has have in is it its new no non not of off on one or our pack per pcs piece
pieces set size style the this to two up use used with w x your with inch inches cm mm ft oz lb color colour
black white red blue green grey gray pink brown silver gold cyan magenta yellow design assorted original compatible
collection stainless brushed polished satin matt matte oil
heavy premium limited old ages box gen gb mb tb ghz mhz mah
"""
_STOP = frozenset(_STOP_WORDS.split())


class Profile:
    """What a catalogue is about, learned an item at a time in bounded memory. `seed` makes it repeatable."""

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)  # a sample, not a secret
        self._seen = 0
        self._categories: Counter[str] = Counter()
        self._pairs: Counter[str] = Counter()
        self._prices: list[float] = []
        self._stock_known = 0
        self._leading: Counter[str] = Counter()
        self._chinese = ""
        self._chinese_titles = 0
        self._title = ""

    def add(self, item: Item) -> None:
        """Takes `item` into account."""
        self._seen += 1
        self._title = self._title or item.title[:_TITLE_CHARS].strip()
        if item.price is not None:
            self._sample_price(item.price.micros / MICROS_PER_UNIT)
        self._stock_known += item.in_stock is not None
        if self._seen > _SAMPLE:
            return
        if item.category_path:
            self._categories[_readable(item.category_path[-1])] += 1
        self._add_pairs(item)
        if run := _HAN_RUN.search(item.title):
            self._chinese_titles += 1
            self._chinese = self._chinese or run.group()[:_HAN_CHARS]

    def _add_pairs(self, item: Item) -> None:
        # A brand is what everybody of it sells, not something to look for.
        dull = _STOP.union(word.lower() for word in _WORD.findall(item.brand))
        for pair in _PAIR.finditer(item.title):
            first, second = pair["first"].lower(), pair["second"].lower()
            if not dull & {first, second} and len(second) > 2 and first != second:
                self._pairs[f"{first} {second}"] += 1
                self._leading[f"{first} {second}"] += pair.start() == 0

    def searches(self, count: int = 4) -> list[DemoSearch]:
        """At most `count` searches that suit the catalogue, one of them filtered where it has prices. None only where
        no item was seen."""
        common = self._chinese_titles > _CHINESE_SHARE * min(self._seen, _SAMPLE)
        chinese = self._chinese if common else ""
        queries = self._queries(count - bool(chinese))
        searches = [DemoSearch(query, like_first=position == 0) for position, query in enumerate(queries)]
        if len(searches) > 1 and (limit := self._price_limit()) is not None:
            in_stock = True if self._stock_known > self._seen / 2 else None
            searches[1] = DemoSearch(searches[1].query, max_price=limit, in_stock=in_stock)
        if chinese:
            searches.append(DemoSearch(chinese, like_first=not searches))
        if not searches and self._title:
            # Small shops repeat nothing, and of most languages no words are known.
            return [DemoSearch(self._title, like_first=True)]
        return searches

    def _queries(self, count: int) -> list[str]:
        # A category that holds nearly everything, or next to nothing, tells nobody what is sold.
        useful = [name for name, n in self._categories.most_common() if 3 <= n < 0.8 * min(self._seen, _SAMPLE)]
        by_category = useful[: count // 2]
        chosen = list(by_category)
        for pair, n in self._pairs.most_common(50):
            if len(chosen) >= count:
                break
            fresh = not any(set(pair.split()) & set(query.lower().split()) for query in chosen)
            # What titles begin with is a brand more often than not.
            if n >= 2 and fresh and self._leading[pair] <= n / 2:
                chosen.append(pair)
        return chosen + list(useful[len(by_category) :])[: count - len(chosen)]

    def _price_limit(self) -> float | None:
        if len(self._prices) < 5:
            return None
        median = sorted(self._prices)[len(self._prices) // 2]
        return next((limit for limit in _ROUND if limit >= median), None) if median > 0 else None

    def _sample_price(self, price: float) -> None:
        """Keeps every price seen with the same chance (reservoir sampling)."""
        if len(self._prices) < _PRICES:
            self._prices.append(price)
        elif (slot := self._random.randrange(self._seen)) < _PRICES:
            self._prices[slot] = price


_ROUND = [step * 10**power for power in range(-1, 7) for step in (1, 2, 5)]
"""Limits that a shopper would name."""


def _readable(category: str) -> str:
    """`home_garden-tools` → `home garden tools`."""
    return re.sub(r"[\W_]+", " ", category).strip().lower()


def for_query(query: str) -> Sequence[DemoSearch]:
    """The one search that was asked for."""
    return (DemoSearch(query),)
