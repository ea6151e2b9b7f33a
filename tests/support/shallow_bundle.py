"""The default model cut down to its first layer: real weights, tokenizer and dimensions at a fraction of the work.

For what is about the road that items take, and not about the vectors they get: nobody should search with these.
"""

import json
import shutil
from pathlib import Path

from safetensors.numpy import load_file, save_file

from services.trainer.base import open_base
from services.trainer.export import export
from services.trainer.options import ExportOptions
from shared.bundles import Bundle

_ITEM_TOKENS = 64


def make_shallow_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`, made if it is not there yet. Raises `JobError` where the base model is not installed."""
    base = folder / "base"
    if not (base / "config.json").is_file():
        _cut(open_base("minilm").path, base)
    return export(ExportOptions(str(base), folder / "bundle", name="shallow", max_item_tokens=_ITEM_TOKENS))


def _cut(whole: Path, base: Path) -> None:
    shutil.copytree(whole, base, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "*.safetensors"))
    config = json.loads((whole / "config.json").read_text())
    kept = {
        name: weight
        for name, weight in load_file(whole / "model.safetensors").items()
        if "encoder.layer." not in name or "encoder.layer.0." in name
    }
    save_file(kept, base / "model.safetensors", {"format": "pt"})
    (base / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
