from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from services.trainer.evaluate.encode import Vectors
from services.trainer.evaluate.kept import KeptEncoder, KeptReranker
from services.trainer.evaluate.rerank import Logits, Pair
from services.trainer.parts import Parts
from shared.bundles import ItemLike
from shared.items import Item


class Model:
    """An encoder and a re-ranker, which tells what it was asked."""

    name, version = "a model", "v1"

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.asked: list[object] = []

    def item_text(self, item: ItemLike) -> str:
        return item.title

    def queries(self, texts: Sequence[str]) -> Vectors:
        return self._rows(texts)

    def items(self, texts: Sequence[str]) -> Vectors:
        return self._rows(texts)

    def logits(self, pairs: Sequence[Pair]) -> Logits:
        return self._rows(pairs)

    def _rows(self, asked: Sequence[object]) -> Vectors:
        self.asked += asked
        return np.arange(len(asked), dtype=np.float32)[:, None]


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def test_items_are_encoded_once_and_queries_each_time(parts: Parts) -> None:
    model = Model("one")
    kept = KeptEncoder(model, parts)
    assert (kept.name, kept.version, kept.item_text(Item(id="1", title="desk"))) == ("a model", "v1", "desk")
    for _ in range(2):
        assert kept.items(["desk", "lamp"]).tolist() == [[0], [1]]
        kept.queries(["red"])
    assert model.asked == ["desk", "lamp", "red", "red"]


def test_pairs_are_scored_once(parts: Parts) -> None:
    model = Model("one")
    kept = KeptReranker(model, parts)
    assert (kept.name, kept.version, kept.item_text(Item(id="1", title="desk"))) == ("a model", "v1", "desk")
    for _ in range(2):
        assert kept.logits([("red", "desk"), ("red", "lamp")]).tolist() == [[0], [1]]
    assert model.asked == [("red", "desk"), ("red", "lamp")]


def test_what_one_model_says_is_not_another_s(parts: Parts) -> None:
    KeptEncoder(Model("one"), parts).items(["desk"])
    other = Model("other")
    KeptEncoder(other, parts).items(["desk"])
    assert other.asked == ["desk"]
