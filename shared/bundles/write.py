"""Writing a bundle so that no reader ever sees half of one."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.bundles.bundle import FORBIDDEN_SUFFIXES, Bundle
from shared.bundles.errors import BundleError
from shared.bundles.files import MANIFEST_NAME, hash_tree
from shared.bundles.manifest import Manifest


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """An empty directory on `out`'s own file system (a rename must not copy), gone afterwards."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent, ignore_cleanup_errors=True) as made:
        staged = Path(made) / out.name
        staged.mkdir()
        yield staged


def seal(staged: Path, manifest: Manifest, out: Path) -> Bundle:
    """Hash what lies in `staged`, write `bundle.json` with the version, and move it to `out`.

    An older bundle at `out` is replaced; anything else there is left alone and is a `BundleError`.
    """
    for path in staged.rglob("*"):
        if path.suffix in FORBIDDEN_SUFFIXES:
            raise BundleError(f"{path.name} may hold code and has no place in a bundle; save safetensors instead")
    complete = manifest.model_copy(update={"files": hash_tree(staged)})
    complete = complete.model_copy(update={"version": complete.content_hash()})
    (staged / MANIFEST_NAME).write_text(complete.model_dump_json(indent=2) + "\n", encoding="utf-8")
    _swap(staged, out)
    return Bundle(out, complete)


def _swap(staged: Path, out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / MANIFEST_NAME).is_file():
            raise BundleError(f"{out} holds something that is not a bundle: give another --out, or remove it")
        # A directory cannot be renamed over another: the old one steps aside for the moment between two renames.
        old = staged.parent / "replaced"
        out.rename(old)
        try:
            staged.rename(out)
        except OSError:
            old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        staged.rename(out)
