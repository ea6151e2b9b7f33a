from pathlib import Path

import pytest

from shared.bundles import BundleKind
from shared.bundles.__main__ import main
from tests.support.tiny_bundle import make_bundle


def test_a_whole_bundle_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "tiny", BundleKind.BI_ENCODER)
    assert main(["verify", str(bundle.path)]) == 0
    assert capsys.readouterr().out == f"{bundle.path}: {bundle.manifest.kind} tiny {bundle.version}\n"


def test_every_broken_bundle_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = make_bundle(tmp_path / "whole", BundleKind.BI_ENCODER)
    torn = make_bundle(tmp_path / "torn", BundleKind.BI_ENCODER)
    torn.tokenizer_path.write_text("{}")
    assert main(["verify", str(torn.path), str(tmp_path / "none"), str(whole.path)]) == 1
    told = capsys.readouterr()
    assert "tokenizer.json is not what bundle.json says" in told.err
    assert "no model bundle at" in told.err
    assert "whole" in told.out
