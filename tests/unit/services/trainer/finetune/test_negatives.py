from collections.abc import Sequence

import numpy as np

from services.trainer.evaluate.encode import Vectors
from services.trainer.finetune.data import Judgements, Row
from services.trainer.finetune.negatives import RANKS, mined_negatives
from services.trainer.prepared import Grades
from shared.bundles import ItemLike

GRADES = Grades(lowest=0, highest=3, relevant=2)
ITEMS = {f"i{at:03}": f"item {at}" for at in range(120)}
JUDGED = {"q": {"i000": 3.0, "i007": 2.0, "i009": 0.0}}
JUDGEMENTS = Judgements([Row("q", "0", "i000", 3.0)], JUDGED, {"q": "0"})


class Line:
    """Texts end in a number; the nearer two are, the more alike. `spread` tells how fast likeness falls."""

    name = version = digest = "line"

    def __init__(self, spread: float = 0.005) -> None:
        self._spread = spread

    def item_text(self, item: ItemLike) -> str:
        raise NotImplementedError

    def queries(self, texts: Sequence[str]) -> Vectors:
        angles = np.array([float(text.split()[-1]) for text in texts]) * self._spread
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    items = queries


def mined(encoder: Line, texts: dict[str, str] | None = None) -> set[int]:
    """The numbers of the negatives that twenty seeds give."""
    found = (mined_negatives(JUDGEMENTS, encoder, texts or ITEMS, GRADES, seed) for seed in range(20))
    return {int(item.removeprefix("i")) for [item] in found}


def test_negatives_rank_high_but_not_first_and_are_not_good() -> None:
    found = mined(Line(spread=0.02))
    # 0 and 7 are good, so the first five others are 1 to 5; a cosine of 0.95 is that of item 16.
    assert found <= set(range(16, RANKS[1] + 2))
    assert len(found) > 5


def test_what_is_nearly_as_near_as_the_positive_is_none() -> None:
    # Nothing is 5 % further off: a random item stands in.
    assert len(mined(Line(spread=1e-5))) > 10


def test_what_reads_like_a_good_item_is_none() -> None:
    same = {item: ("item 0" if int(item[1:]) < 40 else text) for item, text in ITEMS.items()}
    assert min(mined(Line(spread=0.02), same)) >= 40


def test_the_same_seed_finds_the_same() -> None:
    assert mined_negatives(JUDGEMENTS, Line(), ITEMS, GRADES, 1) == mined_negatives(
        JUDGEMENTS, Line(), ITEMS, GRADES, 1
    )
