import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from services.trainer import __main__ as command
from services.trainer.alone import alone
from services.trainer.evaluate.encode import FolderEncoder, open_encoder
from services.trainer.evaluate.findings import find
from services.trainer.evaluate.page import page
from services.trainer.evaluate.score import Data, Split, score
from services.trainer.prepared import PreparedSet
from shared.bundles import Precision
from tests.support.judged_shop import make_prepared
from tests.support.stopping import stopped_once
from tests.unit.services.trainer.conftest import make_base


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return make_prepared(tmp_path_factory.mktemp("shop"))


class Document(HTMLParser):
    """Tags that were opened and not closed, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_whole_catalogue_is_searched_and_judged_pairs_are_scored(prepared: PreparedSet, tiny_base: Path) -> None:
    data = Data(prepared, "test")
    scored = score(open_encoder(str(tiny_base), Precision.INT8), data)
    assert len(data.items) == 64
    assert set(scored.run) == set(data.split.queries)
    assert all(len(found) == 64 for found in scored.run.values())
    assert all(list(found.values()) == sorted(found.values(), reverse=True) for found in scored.run.values())
    assert scored.classification.pairs == sum(map(len, data.split.qrels.values()))
    assert data.tuning_split == "valid"


def test_fewer_items_still_hold_the_judged_ones(prepared: PreparedSet) -> None:
    data = Data(prepared, "test", most_items=1)
    judged = {item for items in data.split.qrels.values() for item in items}
    assert judged <= {item.id for item in data.items}
    assert len(data.items) < data.catalogue == 64


def test_a_report_is_written_for_people_and_programs(
    prepared: PreparedSet, tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    other = make_base(tmp_path / "other", model_type="bert")
    arguments = ["evaluate", "--data", str(prepared.path), "--model", str(tiny_base), "--out", str(tmp_path / "out")]
    assert command.main([*arguments, "--baseline", str(other)]) == 0
    assert "ndcg@10" in caplog.text
    assert re.search(r"roc auc +0\.\d+ \[0\.\d+, [01]\.\d+\]  baseline 0\.\d+  [+-]0\.\d+  p [01]\.\d+", caplog.text)
    text = (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")
    document = Document(text)
    assert document.open == []
    assert document.tags.count("svg") >= 2
    assert all(link.startswith("#") for link in document.links)
    assert "The worst" in document.text
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert set(found["model"]["measures"]) == {
        "ndcg@10", "mrr@10", "recall@10", "recall@100", "map", "judged ndcg@10",
    }  # fmt: skip
    assert 0 <= found["differences"]["ndcg@10"]["p_value"] <= 1
    assert (found["context"]["split"], found["context"]["items"], found["context"]["catalogue"]) == ("test", 64, 64)
    kinds = [found[role]["classification"] for role in ("model", "baseline")]
    assert sum(map(sum, kinds[0]["confusion"])) == kinds[0]["pairs"]
    for name, change in found["classification_differences"].items():
        assert change["value"] == kinds[0][name] - kinds[1][name]
        assert 0 < change["p_value"] <= 1
        told = [kinds[0]["intervals"][name], kinds[1]["intervals"][name], change]
        assert all(f"{each['low']:.4f} to {each['high']:.4f}" in document.text for each in told)
    assert set(found["classification_differences"]) >= {"roc_auc", "average_precision", "f1"}


def test_one_that_was_stopped_goes_on_when_the_same_is_asked_again(
    prepared: PreparedSet, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, out = make_base(tmp_path / "other", seed=1), tmp_path / "out"
    asked = ["evaluate", "--data", str(prepared.path), "--model", str(tiny_base), "--baseline", str(other), "--out"]
    encoded = stopped_once(monkeypatch, FolderEncoder, "items", after=5, rows=16)
    with pytest.raises(KeyboardInterrupt):
        command.main([*asked, str(out)])
    assert len(encoded) == 5 * 16
    assert command.main([*asked, str(out)]) == 0
    assert len(encoded) == 2 * 64, "each item once by each model"
    assert command.main([*asked, str(tmp_path / "whole")]) == 0
    stopped, whole = (json.loads((path / "evaluation.json").read_text()) for path in (out, tmp_path / "whole"))
    assert stopped == whole
    assert {path.name for path in out.iterdir()} == {".lock", "evaluation.json", "evaluation.html"}


def test_another_evaluation_does_not_go_on_with_it(
    prepared: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, out = make_base(tmp_path / "model"), tmp_path / "out"
    asked = ["evaluate", "--data", str(prepared.path), "--model", str(base), "--out", str(out)]
    encoded = stopped_once(monkeypatch, FolderEncoder, "items", after=3, rows=16)
    with pytest.raises(KeyboardInterrupt):
        command.main(asked)
    assert len(list((out / "parts").iterdir())) == 3
    make_base(base, seed=1)
    assert command.main(asked) == 0
    assert len(encoded) == 3 * 16 + 64, "another model in the same folder"
    assert not (out / "parts").exists()


def test_two_do_not_share_a_folder(
    prepared: PreparedSet, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(prepared.path), "--model", str(tiny_base), "--out", str(tmp_path)]
    with alone(tmp_path, "it"):
        assert command.main(["evaluate", *arguments]) == 1
    assert f"--out {tmp_path} is another run's" in capsys.readouterr().err
    assert not (tmp_path / "evaluation.json").exists()


def test_texts_from_the_catalogue_cannot_become_markup(tiny_base: Path, tmp_path: Path) -> None:
    shop = make_prepared(tmp_path)
    scored = score(open_encoder(str(tiny_base), Precision.INT8), Data(shop, "test"))
    data = Data(shop, "test")
    data.items = [replace(item, title="<script>alert(1)</script>") for item in data.items]
    assert "<script>" not in page(find(scored, None, data, {"command": "<b>"}))


def test_queries_that_are_not_measured_make_no_slice(prepared: PreparedSet, tiny_base: Path) -> None:
    data = Data(prepared, "train")
    known = list(data.split.queries)
    data.before = known[:20]
    scored = score(open_encoder(str(tiny_base), Precision.INT8), data)
    unmeasured = [f"u{at}" for at in range(12)]
    data.split = Split(
        {**data.split.queries, **dict.fromkeys(unmeasured, "desk")},
        {**data.split.qrels, **{key: {"red-lamp": 0.0} for key in unmeasured}},
    )
    found = {(each.kind, each.name): each.model.queries for each in find(scored, scored, data, {}).slices}
    assert ("length", "1 word") not in found
    assert (found["age", "old"], found["age", "new"]) == (20, len(known) - 20)


def test_without_a_baseline_nothing_is_compared(prepared: PreparedSet, tiny_base: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(prepared.path), "--model", str(tiny_base), "--split", "valid", "--most-items", "1"]
    assert command.main(["evaluate", *arguments, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "evaluation.json").read_text())
    context = found["context"]
    assert (context["split"], context["most_items"], context["catalogue"]) == ("valid", 1, 64)
    assert 0 < context["items"] < 64
    assert found["differences"] == found["classification_differences"] == {}
    assert set(found["model"]["classification"]["intervals"]["roc_auc"]) == {"low", "high"}
    assert "baseline" not in found


def test_a_split_that_is_not_there_is_named(
    prepared: PreparedSet, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(prepared.path), "--model", str(tiny_base), "--split", "dev"]
    assert command.main(["evaluate", *arguments, "--out", str(tmp_path)]) == 1
    assert "no split dev" in capsys.readouterr().err
