"""MaxSim over many items at once."""

import numpy as np
import pytest

from shared.bundles import Pooling
from shared.inference.late_interaction import PART_ROWS, Storage, TextVectors, interact
from shared.inference.text_rows import Floats, text_rows

HIDDEN = 16


def tokens(count: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(count, HIDDEN)).astype(np.float32)


def kept(count: int, seed: int) -> TextVectors:
    return TextVectors.pack(text_rows(tokens(count, seed), Pooling.MEAN), Storage.FLOAT16)


QUERY = text_rows(tokens(5, 0), Pooling.MEAN)


def by_definition(item: TextVectors) -> float:
    rows = item.values.astype(np.float32) * item.scales[:, None]
    cosines = QUERY @ rows.T
    return float((cosines[:-1, :-1].max(axis=1).mean() + cosines[-1, -1]) / 2)


@pytest.mark.parametrize(
    "lengths", [[1], [3, 1, 7], [PART_ROWS - 1, 1], [PART_ROWS, 2], [2, PART_ROWS + 5, 4, 900, 900, 900]]
)
def test_every_item_has_the_score_it_has_alone(lengths: list[int]) -> None:
    items = [kept(length, seed) for seed, length in enumerate(lengths, start=1)]
    assert interact(QUERY, items) == pytest.approx([by_definition(item) for item in items], abs=1e-4)
