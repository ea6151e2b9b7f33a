"""A shop that nobody has judged yet: from its catalogue to a bundle, and on with the first judgements."""

from pathlib import Path

import pytest

from services.trainer import __main__ as command
from services.trainer.export import export
from services.trainer.options import ExportOptions
from services.trainer.prepared import open_prepared
from services.trainer.record import read_record
from shared.bundles import Floors, load_bundle
from tests.support.judged_shop import write_files

ANY = Floors(cosine_mean=0.9, cosine_min=0.8, overlap_at_10=0.0, ndcg_drop=1.0)
"""So few weights lose more to int8 than a real model's."""


def job(*arguments: object) -> None:
    assert command.main([str(argument) for argument in arguments]) == 0


@pytest.mark.parametrize("objective", ["pseudo-queries", "mlm"])
def test_a_catalogue_alone_leads_to_a_bundle_and_on_to_fine_tuning(
    tiny_base: Path, tmp_path: Path, objective: str
) -> None:
    catalogue, judgements = write_files(tmp_path)
    job("prepare", "--catalogue", catalogue, "--out", tmp_path / "catalogue")
    small = ["--batch", 8, "--max-steps", 4, "--evaluations", 1]
    learn = ["--objective", objective, "--base", tiny_base, "--max-item-tokens", 40, *small]
    job("pretrain", "--data", tmp_path / "catalogue", "--out", tmp_path / "pretrained", *learn)
    bundle = export(ExportOptions(base=str(tmp_path / "pretrained"), out=tmp_path / "bundle", floors=ANY))
    assert bundle.manifest.training_data == open_prepared(tmp_path / "catalogue").content_hash
    assert bundle.manifest.max_item_tokens == 40
    assert objective in (tmp_path / "bundle" / "README.md").read_text()

    job("prepare", "--catalogue", catalogue, "--judgements", judgements, "--out", tmp_path / "judged")
    onwards = ["--base", tmp_path / "pretrained", *small]
    job("finetune-encoder", "--data", tmp_path / "judged", "--out", tmp_path / "model", *onwards)
    written = read_record(tmp_path / "model")
    assert written is not None
    assert (written.base_model, written.max_item_tokens) == ("tiny", 40)
    export(ExportOptions(base=str(tmp_path / "model"), out=tmp_path / "next", floors=ANY))
    assert load_bundle(tmp_path / "next").version != bundle.version
