"""Made-up queries for items that nobody has searched for yet.

Known-item topics (Azzopardi et al., "Building Simulated Queries for Known-Item Topics", SIGIR 2007): a length is drawn,
then that many of the item's words, each by how well it tells the item from others.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from math import log

from shared.items import Item

_WORD = re.compile(r"[^\W_]+(?:[-./'’][^\W_]+)*")
"""Keeps together what names a thing: 3/4, 1-handle, sc-141."""
_LENGTHS = (2, 3, 4)
"""Words a query: four of five queries of a hardware shop's judged set have so many (3.2 on average)."""
_LEAST_ITEMS = 3
"""A word that fewer items have is a model number or a slip: nobody searches by it who does not know the item."""


class QueryMaker:
    """Knows how common each word of the catalogue is."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._words = {item.id: _words(item) for item in items}
        self._items_with = Counter(word for words in self._words.values() for word in words)

    def queries(self, item_id: str, count: int, seed: int) -> list[str]:
        """At most `count` different queries, the same for the same `seed`; none for an item of fewer than two words.

        Words stand in the order in which the item has them. A language that sets no spaces gives no words.
        """
        chance = random.Random(f"{seed} {item_id}")
        words = self._words[item_id]
        known = [word for word in words if self._items_with[word] >= _LEAST_ITEMS]
        choice = known if len(known) >= min(_LENGTHS) else words
        if len(choice) < min(_LENGTHS):
            return []
        return list(dict.fromkeys(self._draw(choice, chance) for _ in range(count)))

    def _draw(self, words: Sequence[str], chance: random.Random) -> str:
        length = min(chance.choice(_LENGTHS), len(words))
        # Efraimidis and Spirakis (2006): the largest of u^(1/weight) are a weighted sample without replacement.
        ranked = sorted(words, key=lambda word: chance.random() ** (1 / self._salience(word)), reverse=True)
        drawn = set(ranked[:length])
        return " ".join(word for word in words if word in drawn)

    def _salience(self, word: str) -> float:
        """Inverse document frequency, above 0 even for a word that every item has."""
        return log(1 + len(self._words) / self._items_with[word])


def _words(item: Item) -> list[str]:
    """Title, brand and the category that is nearest to the item: each word once."""
    text = " ".join([item.brand, item.title, *item.category_path[-1:]])
    return list(dict.fromkeys(_WORD.findall(text.lower())))
