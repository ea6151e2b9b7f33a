"""A cross-encoder beside another, over what a bi-encoder finds."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from services.trainer import __main__ as command
from services.trainer.evaluate.encode import open_encoder
from services.trainer.evaluate.rerank import RERANKED, FolderReranker, Logits, Pair, open_reranker, score_reranked
from services.trainer.evaluate.score import Data, retrieve
from services.trainer.export import export
from services.trainer.options import ExportOptions
from services.trainer.prepared import PreparedSet
from shared.bundles import BundleKind, Floors, ItemLike, Precision
from tests.support.judged_shop import make_prepared
from tests.support.stopping import stopped_once
from tests.unit.services.trainer.conftest import make_base

ANY = Floors(cosine_mean=-1, cosine_min=-1, overlap_at_10=0.0, ndcg_drop=1.0)
"""Random weights rank by chance, in int8 by another."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return make_prepared(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def cross_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("cross") / "tiny", labels=1)


class Knowing:
    """Knows what the made-up shop means: a query names the item's colour and thing. `sign` -1: thinks the opposite."""

    version = digest = ""

    def __init__(self, sign: int = 1) -> None:
        self.name = f"knowing {sign:+}"
        self._sign = sign

    def item_text(self, item: ItemLike) -> str:
        return item.title

    def logits(self, pairs: Sequence[Pair]) -> Logits:
        shared = [len(set(query.split()) & set(text.split())) for query, text in pairs]
        return self._sign * np.array(shared, np.float32)[:, None]


def test_the_first_items_come_in_its_order_and_the_rest_as_they_were(prepared: PreparedSet, tiny_base: Path) -> None:
    data = Data(prepared, "test")
    first = retrieve(open_encoder(str(tiny_base), Precision.INT8), data)
    scored = score_reranked(Knowing(), first, data)
    for key, found in scored.run.items():
        before, after = list(first[key]), sorted(found, key=lambda item: -found[item])
        assert set(after[:RERANKED]) == set(before[:RERANKED])
        assert after[RERANKED:] == before[RERANKED:]
        wanted = "-".join(data.split.queries[key].split())
        assert wanted not in before[:RERANKED] or after[0] == wanted


def test_one_that_knows_is_better_than_one_that_thinks_the_opposite(prepared: PreparedSet, tiny_base: Path) -> None:
    data = Data(prepared, "test")
    first = retrieve(open_encoder(str(tiny_base), Precision.INT8), data)
    good, bad = (score_reranked(Knowing(sign), first, data) for sign in (1, -1))
    assert good.classification.values["roc_auc"] > 0.9
    assert bad.classification.values["roc_auc"] < 0.1
    assert np.mean(list(good.measures["ndcg@10"].values())) > np.mean(list(bad.measures["ndcg@10"].values()))


def test_a_folder_and_its_bundle_give_the_same_logits(cross_base: Path, tmp_path: Path) -> None:
    export(ExportOptions(base=str(cross_base), out=tmp_path / "bundle", kind=BundleKind.CROSS_ENCODER, floors=ANY))
    folder, bundle = (open_reranker(str(path), Precision.FP32) for path in (cross_base, tmp_path / "bundle"))
    assert folder is not None
    assert bundle is not None
    assert (folder.version, bundle.version != "") == ("", True)
    int8 = open_reranker(str(tmp_path / "bundle"), Precision.INT8)
    assert int8 is not None
    assert len({folder.digest, bundle.digest, int8.digest}) == 3
    pairs = [("red desk", "desk in red"), ("red desk", "a lamp"), ("blue rug", "rug in blue")]
    assert folder.logits(pairs) == pytest.approx(bundle.logits(pairs), abs=1e-4)


def test_a_bi_encoder_is_none(tiny_base: Path) -> None:
    assert open_reranker(str(tiny_base), Precision.INT8) is None


def test_the_job_measures_cross_encoders(
    prepared: PreparedSet, tiny_base: Path, cross_base: Path, tmp_path: Path
) -> None:
    other = make_base(tmp_path / "other", labels=1)
    compared = ["--model", str(cross_base), "--baseline", str(other), "--retriever", str(tiny_base)]
    assert command.main(["evaluate", "--data", str(prepared.path), *compared, "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["context"]["orders"] == f"the first {RERANKED} of tiny (torch)"
    assert "ndcg@10" in found["differences"]


def test_what_was_scored_before_the_job_was_stopped_is_not_scored_again(
    prepared: PreparedSet, tiny_base: Path, cross_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["evaluate", "--data", str(prepared.path), "--model", str(cross_base), "--retriever", str(tiny_base)]
    scored = stopped_once(monkeypatch, FolderReranker, "logits", after=3, rows=100)
    with pytest.raises(KeyboardInterrupt):
        command.main([*asked, "--out", str(tmp_path / "out")])
    before = len(scored)
    assert command.main([*asked, "--out", str(tmp_path / "out")]) == 0
    after, scored[:] = len(scored), []
    assert command.main([*asked, "--out", str(tmp_path / "whole")]) == 0
    assert 0 < before < after == len(scored)
    stopped, whole = ((tmp_path / name / "evaluation.json").read_text() for name in ("out", "whole"))
    assert stopped == whole


def test_two_kinds_of_model_do_not_compare(
    prepared: PreparedSet, tiny_base: Path, cross_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared = ["--model", str(cross_base), "--baseline", str(tiny_base)]
    assert command.main(["evaluate", "--data", str(prepared.path), *compared, "--out", str(tmp_path / "out")]) == 1
    assert "one is a cross-encoder and the other is none" in capsys.readouterr().err
