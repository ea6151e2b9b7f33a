from pathlib import Path

from services.trainer.evaluate.encode import open_encoder
from services.trainer.export import export
from services.trainer.options import ExportOptions
from shared.bundles import Floors, Precision

ANY = Floors(cosine_mean=-1, cosine_min=-1, overlap_at_10=0.0, ndcg_drop=1.0)
"""Random weights rank by chance, in int8 by another."""


def test_a_model_s_digest_tells_its_graphs_apart(tiny_base: Path, tmp_path: Path) -> None:
    bundle = export(ExportOptions(base=str(tiny_base), out=tmp_path / "bundle", floors=ANY)).path
    asked = [(bundle, Precision.INT8), (bundle, Precision.FP32), (tiny_base, Precision.FP32)]
    digests = [open_encoder(str(path), precision).digest for path, precision in asked]
    assert len(set(digests)) == 3
    assert digests == [open_encoder(str(path), precision).digest for path, precision in asked]
