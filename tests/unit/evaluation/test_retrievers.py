"""Ways of searching, on a shop small enough to know the answers."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from services.trainer.evaluate.encode import Vectors
from services.vector_retrieval.fusion import Linear
from tests.evaluation.lexical import Bm25, best
from tests.evaluation.retrievers import ByVector, ByWords, Hybrid, Random, Reranked, fused

TITLES = {"d": "red desk", "l": "red lamp", "b": "blue desk", "r": "grey rug"}
AXES = ("red", "blue", "grey", "desk", "lamp", "rug")


class Words:
    """An encoder whose space has an axis a word."""

    name, version = "words", ""

    def item_text(self, item: object) -> str:
        raise NotImplementedError

    def queries(self, texts: Sequence[str]) -> Vectors:
        counts = np.array([[text.split().count(axis) for axis in AXES] for text in texts], np.float32)
        unit: Vectors = counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)
        return unit

    items = queries


@dataclass
class Scores:
    values: list[float | None]
    unscored: int = 0


class Lengths:
    """A re-ranker that likes short texts; `blind`, it scores none."""

    def __init__(self, blind: bool = False) -> None:
        self._blind = blind
        self.seen: list[str] = []

    async def score(self, query: str, texts: Sequence[str]) -> Scores:
        self.seen = list(texts)
        return Scores([None] * len(texts), len(texts)) if self._blind else Scores([1 / len(text) for text in texts])


@pytest.fixture
def words() -> ByWords:
    return ByWords("BM25", Bm25(TITLES))


@pytest.fixture
def vectors() -> ByVector:
    encoder = Words()
    return ByVector(encoder, list(TITLES), encoder.items(list(TITLES.values())))


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


def test_words_find_what_shares_one_and_nothing_else(words: ByWords) -> None:
    assert list(words.search("blue desk", 10)) == ["b", "d"]
    assert words.search("sofa", 10) == {}
    assert words.judge("blue desk", ["r", "b"])[0] == 0


def test_a_word_that_is_rare_counts_more() -> None:
    scores = Bm25(TITLES).scores("red lamp")
    assert scores["l"] > scores["d"] > 0


def test_equal_scores_come_in_the_order_of_ids() -> None:
    assert list(best({"b": 1.0, "a": 1.0, "c": 2.0}, 2)) == ["c", "a"]


def test_vectors_come_nearest_first_and_as_many_as_asked(vectors: ByVector) -> None:
    assert next(iter(vectors.search("red desk", 3))) == "d"
    assert len(vectors.search("red desk", 3)) == 3
    assert len(vectors.search("red desk", 99)) == len(TITLES)


def test_search_and_judgement_of_vectors_agree(vectors: ByVector) -> None:
    found = vectors.search("blue desk", 4)
    assert vectors.judge("blue desk", list(found)) == pytest.approx(list(found.values()))


def test_a_random_order_is_the_same_each_time_and_another_for_another_query() -> None:
    retriever = Random([str(at) for at in range(100)])
    assert retriever.search("a", 50) == retriever.search("a", 50)
    assert list(retriever.search("a", 50)) != list(retriever.search("b", 50))
    assert retriever.judge("a", ["1", "2"]) == retriever.judge("a", ["1", "2"])


@pytest.mark.parametrize(("weight", "half"), [(1.0, "vectors"), (0.0, "words")])
def test_a_hybrid_with_one_weight_orders_as_that_half(
    weight: float, half: str, vectors: ByVector, words: ByWords
) -> None:
    alone = vectors if half == "vectors" else words
    found = list(Hybrid(vectors, words, weight).search("red lamp", 10))
    expected = list(alone.search("red lamp", 2))
    assert found[:2] == expected


def test_a_hybrid_gives_no_more_than_it_is_asked_for(vectors: ByVector, words: ByWords) -> None:
    both = Hybrid(vectors, words, 0.5)
    assert list(both.search("red lamp", 2)) == list(both.search("red lamp", 10))[:2]


def test_a_fusion_holds_what_either_half_found() -> None:
    assert set(fused({"a": 0.9}, {"b": 7.0}, Linear(0.5, 0.5))) == {"a", "b"}


def test_a_reranker_with_all_of_the_say_decides_the_order(vectors: ByVector, runner: asyncio.Runner) -> None:
    texts = {"d": "xxx", "l": "x", "b": "xxxx", "r": "xx"}
    reranked = Reranked("lengths", vectors, Lengths(), texts, 1.0, runner)  # type: ignore[arg-type]
    assert list(reranked.search("red desk", 4)) == ["l", "r", "d", "b"]
    assert reranked.judge("red desk", ["b", "l"]) == [0.25, 1.0]


def test_one_scoring_serves_every_share(vectors: ByVector, runner: asyncio.Runner) -> None:
    texts, shares = {"d": "xxx", "l": "x", "b": "xxxx", "r": "xx"}, (0.0, 0.5, 1.0)
    reranked = Reranked("lengths", vectors, Lengths(), texts, 0.5, runner)  # type: ignore[arg-type]
    found = reranked.by_share("red desk", 4, shares)
    assert found == [reranked.weighing(share).search("red desk", 4) for share in shares]
    assert next(iter(found[0])) == "d"
    assert list(found[2]) == ["l", "r", "d", "b"]
    assert reranked.weighing(0.25).name == "words + lengths, share 0.25"


def test_a_reranker_sees_the_first_candidates_alone(runner: asyncio.Runner) -> None:
    many = {str(at): "red" for at in range(60)}
    encoder = Words()
    first = ByVector(encoder, list(many), encoder.items(list(many.values())))
    scorer = Lengths()
    found = Reranked("lengths", first, scorer, many, 0.5, runner).search("red", 60)  # type: ignore[arg-type]
    assert (len(scorer.seen), len(found)) == (50, 60)


def test_an_item_without_a_score_ends_the_measurement(vectors: ByVector, runner: asyncio.Runner) -> None:
    reranked = Reranked("blind", vectors, Lengths(blind=True), TITLES, 0.5, runner)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="4 items were not scored"):
        reranked.search("red desk", 4)
