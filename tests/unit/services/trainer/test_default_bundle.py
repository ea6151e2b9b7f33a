"""The default bundle on a volume that outlives the code that made it."""

from pathlib import Path

import pytest

from services.trainer import __main__ as command
from services.trainer import default_bundle
from services.trainer.options import ExportOptions
from shared.bundles import BundleKind
from tests.support.tiny_bundle import make_bundle


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[ExportOptions]:
    """What was asked of `export`, which does nothing here."""
    asked: list[ExportOptions] = []
    monkeypatch.setattr(default_bundle, "export", asked.append)
    return asked


def test_a_whole_bundle_is_kept_whatever_made_it(tmp_path: Path, exported: list[ExportOptions]) -> None:
    bundle = make_bundle(tmp_path / "minilm", BundleKind.BI_ENCODER)
    assert command.main(["default-bundle", "--keep", "--out", str(bundle.path)]) == 0
    assert exported == []
    assert command.main(["default-bundle", "--out", str(bundle.path)]) == 0
    assert [each.out for each in exported] == [bundle.path]


def test_where_none_is_whole_one_is_made(tmp_path: Path, exported: list[ExportOptions]) -> None:
    damaged = make_bundle(tmp_path / "damaged", BundleKind.BI_ENCODER)
    damaged.tokenizer_path.write_text("{}")
    for out in (tmp_path / "none", damaged.path):
        assert command.main(["default-bundle", "--keep", "--out", str(out)]) == 0
    assert [each.out for each in exported] == [tmp_path / "none", damaged.path]
