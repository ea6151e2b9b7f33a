import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.bundles import (
    Bundle,
    BundleError,
    BundleKind,
    ItemTemplate,
    Manifest,
    Precision,
    Prompts,
    TemplateField,
    load_bundle,
    resolve,
    seal,
    staging,
)
from shared.items import Item

MANIFEST = Manifest(
    kind=BundleKind.BI_ENCODER,
    name="tiny",
    base_model="none",
    architecture="bert",
    dimensions=8,
    max_query_tokens=16,
    max_item_tokens=48,
)


def write(out: Path, manifest: Manifest = MANIFEST, weights: bytes = b"weights") -> Bundle:
    with staging(out) as staged:
        (staged / "onnx").mkdir()
        (staged / "model.safetensors").write_bytes(weights)
        (staged / "onnx" / "model_fp32.onnx").write_bytes(b"graph")
        return seal(staged, manifest, out)


def test_what_is_written_can_be_loaded(tmp_path: Path) -> None:
    written = write(tmp_path / "models" / "tiny")
    loaded = load_bundle(str(tmp_path / "models" / "tiny"), kind=BundleKind.BI_ENCODER)
    assert loaded == written
    assert set(loaded.manifest.files) == {"model.safetensors", "onnx/model_fp32.onnx"}
    assert loaded.version == loaded.manifest.content_hash()
    assert len(loaded.version) == 16
    assert loaded.onnx_path(Precision.FP32).read_bytes() == b"graph"
    assert loaded.item_text(Item(id="1", title="Desk")) == "Desk"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"], "nothing is left of the staging"


def test_the_version_is_the_content(tmp_path: Path) -> None:
    version = write(tmp_path / "a").version
    assert write(tmp_path / "b").version == version
    assert write(tmp_path / "c", weights=b"other").version != version
    same = MANIFEST.model_copy(update={"name": "renamed", "command": "x", "inputs": "0" * 64})
    assert write(tmp_path / "d", same).version == version
    for change in (
        {"prompts": Prompts(query="query: ")},
        {"max_item_tokens": 32},
        {"item_template": ItemTemplate(fields=(TemplateField(name="title"),))},
    ):
        assert write(tmp_path / "e", MANIFEST.model_copy(update=change)).version != version


def test_a_bundle_is_replaced_whole_and_nothing_else_is(tmp_path: Path) -> None:
    write(tmp_path / "tiny")
    write(tmp_path / "tiny", weights=b"second")
    assert load_bundle(tmp_path / "tiny").path.joinpath("model.safetensors").read_bytes() == b"second"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="not a bundle"):
        write(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")


def test_a_failure_half_way_leaves_the_old_bundle(tmp_path: Path) -> None:
    before = write(tmp_path / "tiny")

    def fail_half_way() -> None:
        with staging(tmp_path / "tiny") as staged:
            (staged / "model.safetensors").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert load_bundle(tmp_path / "tiny") == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_swap_that_fails_puts_the_old_bundle_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write(tmp_path / "tiny")
    rename = Path.rename

    def refuse_the_new(self: Path, target: Path) -> Path:
        if self.name == "tiny" and self.parent != tmp_path:
            raise OSError("disk on fire")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new)
    with pytest.raises(OSError, match="fire"):
        write(tmp_path / "tiny", weights=b"second")
    monkeypatch.undo()
    assert load_bundle(tmp_path / "tiny") == before


def test_pickles_and_code_have_no_place(tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "modeling.py", "state.pkl"):
        with staging(tmp_path / "tiny") as staged:
            (staged / name).write_bytes(b"")
            with pytest.raises(BundleError, match=name):
                seal(staged, MANIFEST, tmp_path / "tiny")


def edit(bundle: Bundle, change: Callable[[dict[str, Any]], None]) -> None:
    path = bundle.path / "bundle.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    bundle = write(tmp_path / "tiny")
    (bundle.path / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(BundleError, match=r"model\.safetensors is not what"):
        load_bundle(bundle.path)
    load_bundle(bundle.path, verify=False)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    bundle = write(tmp_path / "tiny")
    (bundle.path / "onnx" / "model_fp32.onnx").unlink()
    with pytest.raises(BundleError, match=r"model_fp32\.onnx is missing"):
        load_bundle(bundle.path)
    with pytest.raises(BundleError, match="no fp32 graph"):
        bundle.onnx_path(Precision.FP32)


def test_an_edited_manifest_is_found_out(tmp_path: Path) -> None:
    bundle = write(tmp_path / "tiny")
    edit(bundle, lambda manifest: manifest.update(max_query_tokens=32))
    with pytest.raises(BundleError, match="edited"):
        load_bundle(bundle.path)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "onnx/../../x"])
def test_a_manifest_cannot_point_outside(tmp_path: Path, path: str) -> None:
    bundle = write(tmp_path / "tiny")
    edit(bundle, lambda manifest: manifest["files"].update({path: {"sha256": "0" * 64, "size": 1}}))
    with pytest.raises(BundleError, match="leads out"):
        load_bundle(bundle.path)


def test_a_manifest_that_lists_code_is_refused(tmp_path: Path) -> None:
    bundle = write(tmp_path / "tiny")
    edit(bundle, lambda manifest: manifest["files"].update({"modeling.py": {"sha256": "0" * 64, "size": 1}}))
    with pytest.raises(BundleError, match="may hold code"):
        load_bundle(bundle.path)


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"surprise": 1}, "surprise"),
        ({"format": 2}, "format"),
        ({"kind": "oracle"}, "kind"),
        ({"dimensions": 0}, "dimensions"),
    ],
)
def test_a_manifest_of_another_make_is_named_by_its_key(tmp_path: Path, change: dict[str, Any], at: str) -> None:
    bundle = write(tmp_path / "tiny")
    edit(bundle, lambda manifest: manifest.update(change))
    with pytest.raises(BundleError, match=rf"bundle\.json: {at}"):
        load_bundle(bundle.path)


def test_the_kind_must_be_the_one_that_is_needed(tmp_path: Path) -> None:
    write(tmp_path / "tiny")
    with pytest.raises(BundleError, match="cross-encoder is needed"):
        load_bundle(tmp_path / "tiny", kind=BundleKind.CROSS_ENCODER)


@pytest.mark.parametrize("missing", ["nowhere", "file.txt"])
def test_no_bundle_there_says_how_to_get_one(tmp_path: Path, missing: str) -> None:
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(BundleError, match="make models"):
        load_bundle(tmp_path / missing)


def test_names_are_resolved_in_one_place(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path
    assert resolve((tmp_path / "a b").as_uri()) == tmp_path / "a b"
    assert resolve("~/x").is_absolute()
    for name, message in (
        ("s3://bucket/model", "s3:// yet"),
        ("hf://org/model", "local directory"),
        ("file://server/share", "another host"),
        (" ", "empty"),
    ):
        with pytest.raises(BundleError, match=message):
            resolve(name)
