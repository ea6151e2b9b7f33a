"""From files of judgements to a bundle that serves what was trained."""

from pathlib import Path

import numpy as np
import pytest

from services.trainer import __main__ as command
from services.trainer.evaluate.encode import open_encoder
from services.trainer.export import export
from services.trainer.options import ExportOptions
from services.trainer.prepared import open_prepared
from services.trainer.sample import judge
from shared.bundles import Floors, Precision, load_bundle
from shared.catalogue.generator import generate
from tests.support.judged_shop import write_files

ANY = Floors(cosine_mean=0.9, cosine_min=0.8, overlap_at_10=0.0, ndcg_drop=1.0)
"""So few weights lose more to int8 than a real model's."""


@pytest.fixture
def road(tiny_base: Path, tmp_path: Path) -> Path:
    catalogue, judgements = write_files(tmp_path)
    data, model, report = (str(tmp_path / name) for name in ("data", "model", "report"))
    split = ["--judgements", str(judgements), "--shares", "0.7,0.15,0.15"]
    train = ["--base", str(tiny_base), "--batch", "16", "--max-steps", "30", "--learning-rate", "3e-3"]
    compare = ["--model", model, "--baseline", str(tiny_base)]
    for arguments in (
        ["prepare", "--catalogue", str(catalogue), *split, "--out", data],
        ["finetune-encoder", "--data", data, *train, "--max-item-tokens", "40", "--out", model],
        ["evaluate", "--data", data, *compare, "--out", report],
    ):
        assert command.main(arguments) == 0
    evaluation = tmp_path / "report" / "evaluation.json"
    export(ExportOptions(base=model, out=tmp_path / "bundle", floors=ANY, evaluation=evaluation))
    return tmp_path


def test_a_bundle_carries_what_it_was_trained_on_and_how_good_it_is(road: Path) -> None:
    manifest = load_bundle(road / "bundle").manifest
    assert manifest.base_model == "tiny"
    assert manifest.max_item_tokens == 40
    assert manifest.training_data == open_prepared(road / "data").content_hash
    assert {"ndcg@10", "recall@100", "roc_auc"} <= set(manifest.metrics.evaluation)


def test_what_is_served_is_what_was_trained(road: Path) -> None:
    items = list(open_prepared(road / "data").items())
    trained, served = (open_encoder(str(road / name), Precision.FP32) for name in ("model", "bundle"))
    texts = [trained.item_text(item) for item in items]
    assert texts == [served.item_text(item) for item in items]
    assert np.abs(trained.items(texts) - served.items(texts)).max() < 1e-3
    assert np.abs(trained.queries(["red desk"]) - served.queries(["red desk"])).max() < 1e-3


def test_a_bundle_can_be_trained_further(road: Path, tmp_path: Path) -> None:
    further = ["--base", str(road / "bundle"), "--batch", "16", "--max-steps", "2"]
    data = ["--data", str(road / "data")]
    assert command.main(["finetune-encoder", *data, *further, "--out", str(tmp_path / "further")]) == 0
    bundle = export(ExportOptions(base=str(tmp_path / "further"), out=tmp_path / "next", floors=ANY))
    assert bundle.manifest.base_model == "tiny"
    assert bundle.manifest.max_item_tokens == 40
    assert bundle.version != load_bundle(road / "bundle").version


def test_the_sample_is_a_judged_set() -> None:
    items = list(generate(300))
    rows = list(judge(items, most_queries=50))
    assert rows == list(judge(items, most_queries=50))
    assert {grade for _, _, grade in rows} == {0, 1, 2, 3}
    assert len({query for query, _, _ in rows}) <= 50
    by_id = {item.id: item for item in items}
    for query, item_id, grade in rows:
        item = by_id[item_id]
        wanted = any(query == f"{tag} {item.category_path[-1].lower()}" for tag in item.tags)
        assert wanted == (grade == 3)
