"""The whole of task "search" on a made-up shop and the bundled model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local.spec import DEFAULT_BUNDLE
from services.trainer.evaluate.encode import BundleEncoder, open_encoder
from services.trainer.evaluate.score import Data
from services.trainer.prepared import PreparedSet
from shared.bundles import Precision
from tests.benchmarks.figures import Figure
from tests.evaluation import search
from tests.evaluation.goals import Part
from tests.evaluation.retrievers import RERANKED, Retriever
from tests.evaluation.search import Models
from tests.support.default_model import need_default_model
from tests.support.judged_shop import make_prepared

NDCG = "prepared, test: ndcg@10, "


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    need_default_model()
    return make_prepared(tmp_path_factory.mktemp("shop"))


@dataclass(frozen=True)
class Run:
    """What one run said, and where it keeps vectors."""

    figures: dict[str, Figure]
    lines: list[str]
    cache: Path


def _run(prepared: PreparedSet, cache: Path) -> Run:
    models = Models(str(DEFAULT_BUNDLE), (), (), Precision.INT8, through_mesh=False)
    lines: list[str] = []
    figures = search.run(prepared, "test", models, cache, lines.append)
    return Run({figure.goal.name: figure for figure in figures}, lines, cache)


@pytest.fixture(scope="module")
def run(prepared: PreparedSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return _run(prepared, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def dense() -> str:
    """The row of the bi-encoder."""
    return NDCG + open_encoder(str(DEFAULT_BUNDLE), Precision.INT8).name


def test_every_way_is_measured_and_compared_with_those_before_it(run: Run) -> None:
    ways = [name.removeprefix(NDCG) for name in run.figures if name.startswith(NDCG) and "÷" not in name]
    assert ways[0] == "random"
    assert [way.startswith("BM25") for way in ways[:3]] == [False, True, True]
    assert re.search(r"late interaction .*, share 0\.\d+$|late interaction .*, share 1$", ways[-1])
    # Every pair of ways but those with the random order, by two measures.
    assert sum("÷" in name for name in run.figures) == 2 * (len(ways) - 1) * (len(ways) - 2) // 2
    assert all(any(way in line for line in run.lines) for way in ways)


def test_a_model_finds_more_than_chance_and_its_auc_tells_good_from_bad(run: Run, dense: str) -> None:
    random, found = run.figures[f"{NDCG}random"], run.figures[dense]
    assert found.value is not None
    assert random.value is not None
    assert found.value > random.value + 0.3
    assert found.raw["auc"] > 0.7
    assert found.raw["queries"] == random.raw["queries"] > 0
    assert run.figures[f"{dense} + BM25"].raw["auc"] is None


def test_vectors_of_a_catalogue_are_made_once(
    run: Run, prepared: PreparedSet, dense: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BundleEncoder, "items", lambda *_: pytest.fail("encoded again"))
    assert _run(prepared, run.cache).figures[dense].value == run.figures[dense].value


class Preferring:
    """A re-ranker that finds what is good at one share alone, and remembers what it was asked."""

    def __init__(self, data: Data, share: float) -> None:
        self._data, self._share = data, share
        self.asked: list[str] = []

    def by_share(self, query: str, depth: int, weights: Sequence[float]) -> list[dict[str, float]]:
        self.asked.append(query)
        key = next(key for key, text in self._data.tuning.queries.items() if text == query)
        good = max(self._data.tuning.qrels[key], key=lambda item: self._data.tuning.qrels[key][item])
        return [{good: 1.0} if weight == self._share else {} for weight in weights]


@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_the_share_is_the_best_of_the_validation_split(prepared: PreparedSet, share: float) -> None:
    data = Data(prepared, "test")
    reranked = Preferring(data, share)
    assert search._share(reranked, 0.5, data) == share  # type: ignore[arg-type]
    assert set(reranked.asked) == set(data.tuning.queries.values())
    assert not set(reranked.asked) & set(data.split.queries.values())


def test_without_other_queries_the_share_is_the_gateways(prepared: PreparedSet) -> None:
    data = Data(prepared, "valid")
    assert search._share(Preferring(data, 0.1), 0.5, data) == 0.5  # type: ignore[arg-type]


def test_a_student_does_not_play_its_teachers_part() -> None:
    teacher, student = Path("teacher"), Path("student")
    models = Models("base", ("tuned",), (teacher,), Precision.INT8, through_mesh=False, distilled=(student,))
    assert models.reranking == [(Path("tuned"), None), (teacher, Part.CROSS_ENCODER), (student, Part.DISTILLED)]


class Taking:
    """A way that takes its time, by a clock that only it moves, and remembers whom it was asked after."""

    name = "taking"

    def __init__(self, name: str, seconds: float, clock: list[float], asked: list[str]) -> None:
        self._name, self._seconds, self._clock, self._asked = name, seconds, clock, asked

    def search(self, query: str, depth: int) -> dict[str, float]:
        self._clock[0] += 5.0
        return {f"{query} {at}": 1.0 for at in range(depth)}

    def judge(self, query: str, item_ids: Sequence[str]) -> list[float]:
        assert list(item_ids) == [f"{query} {at}" for at in range(RERANKED)]
        self._asked.append(self._name)
        self._clock[0] += self._seconds
        return [0.0] * len(item_ids)


def test_rerankers_are_timed_in_turns_without_the_search_before_them(
    prepared: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = [0.0], list[str]()
    monkeypatch.setattr("tests.evaluation.search.time.perf_counter", lambda: clock[0])
    ways: dict[Part, Retriever] = {
        part: Taking(part, seconds, clock, asked)
        for part, seconds in ((Part.HYBRID, 9.0), (Part.CROSS_ENCODER, 0.25), (Part.DISTILLED, 0.125))
    }
    data = Data(prepared, "test")
    assert search._timed(ways, data) == {Part.CROSS_ENCODER: 250.0, Part.DISTILLED: 125.0}
    assert asked == [Part.CROSS_ENCODER, Part.DISTILLED] * len(data.split.queries)
    del ways[Part.DISTILLED]
    assert search._timed(ways, data) == {}
