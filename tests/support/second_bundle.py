"""A second real model: the default one, told to read less of an item. Another version, whose vectors differ."""

import shutil
from pathlib import Path

from shared.bundles import load_bundle, seal, staging


def shorter(bundle: Path, out: Path) -> Path:
    """`bundle` again at `out`, with 6 tokens an item."""
    manifest = load_bundle(bundle).manifest
    with staging(out) as staged:
        shutil.copytree(bundle, staged, dirs_exist_ok=True, ignore=shutil.ignore_patterns("bundle.json"))
        seal(staged, manifest.model_copy(update={"name": "short", "max_item_tokens": 6}), out)
    return out
