"""A bundle on disk: a directory that is trusted only after its hashes were checked.

<bundle>/
  bundle.json                 the manifest
  config.json, *.safetensors  weights, in the Hugging Face layout
  tokenizer.json, …
  onnx/model_fp32.onnx        inputs input_ids, attention_mask (and token_type_ids of a cross-encoder)
  onnx/model_int8.onnx        outputs token_embeddings, sentence_embedding (cross-encoder: logits)
  query/                      of two towers the one that reads queries: weights and onnx/, laid out as above
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from shared.bundles.errors import BundleError
from shared.bundles.files import MANIFEST_NAME, hash_file, leads_out
from shared.bundles.manifest import BundleKind, Manifest, Precision, Tower
from shared.bundles.registry import DEFAULT_CACHE
from shared.bundles.resolve import resolve
from shared.bundles.template import ItemLike, render

QUERY_FOLDER = "query"
"""Where the query tower lies in a bundle or a model folder of two."""

FORBIDDEN_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".py", ".pyc"})
"""Formats that run code when loaded, or are code: never part of a bundle."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded manifest and where its files are. Immutable; cheap to pass around."""

    path: Path
    manifest: Manifest

    @property
    def version(self) -> str:
        """The content hash that every vector made with this bundle carries."""
        return self.manifest.version

    @property
    def tokenizer_path(self) -> Path:
        """A `tokenizers` JSON file."""
        return self.path / "tokenizer.json"

    def tower_path(self, tower: Tower) -> Path:
        """The folder with the weights and graphs of `tower`: the same for both, where there is one."""
        return self.path / QUERY_FOLDER if tower is Tower.QUERY and self.manifest.towers == 2 else self.path

    def onnx_path(self, precision: Precision, tower: Tower = Tower.ITEM) -> Path:
        """The ONNX graph of that precision; `BundleError` where the bundle has none."""
        path = self.tower_path(tower) / "onnx" / f"model_{precision}.onnx"
        if not path.is_file():
            raise BundleError(f"bundle {self.path} has no {precision} graph: export it again, without --slim")
        return path

    def item_text(self, item: ItemLike) -> str:
        """What this model reads of `item`, the item prompt not included."""
        return render(self.manifest.item_template, item)


def load_bundle(
    name: str | Path, *, kind: BundleKind | None = None, verify: bool = True, cache: Path = DEFAULT_CACHE
) -> Bundle:
    """Read, and by default verify, the bundle at `name` (see `resolve`, also for `cache`).

    `kind`, where given, must be the bundle's. Raises `BundleError` naming the file at fault.
    Hashing costs about 0.3 s per 100 MB; `verify=False` is for a caller that has just verified it.
    """
    path = name if isinstance(name, Path) else resolve(name, cache)
    bundle = Bundle(path, _read_manifest(path))
    if kind is not None and bundle.manifest.kind is not kind:
        raise BundleError(f"bundle {path} is a {bundle.manifest.kind}, but a {kind} is needed here")
    if verify:
        verify_bundle(bundle)
    return bundle


def verify_bundle(bundle: Bundle) -> None:
    """Check every file against the manifest, and the manifest against its own version."""
    root, manifest = bundle.path, bundle.manifest
    for relative, entry in manifest.files.items():
        path = root / relative
        if leads_out(relative):
            raise BundleError(f"bundle {root}: {relative!r} in {MANIFEST_NAME} leads out of the bundle")
        if path.suffix in FORBIDDEN_SUFFIXES:
            raise BundleError(f"bundle {root}: {relative} may hold code; only safetensors and JSON are loaded")
        if not path.is_file():
            raise BundleError(f"bundle {root}: {relative} is missing; copy the bundle again or export it again")
        if hash_file(path) != entry:
            raise BundleError(
                f"bundle {root}: {relative} is not what {MANIFEST_NAME} says (its hash or size differs); "
                "copy the bundle again or export it again"
            )
    if manifest.version != manifest.content_hash():
        raise BundleError(f"bundle {root}: {MANIFEST_NAME} was edited after export (its version does not match)")


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST_NAME
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"no model bundle at {path} ({MANIFEST_NAME} not found): run `make models`, or point the setting "
            "at a bundle"
        ) from None
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "the document"
        raise BundleError(f"{file}: {at}: {first['msg']} ({error.error_count()} in all)") from error
