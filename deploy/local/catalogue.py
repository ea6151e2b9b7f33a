"""Which catalogue a command is about, and the index that belongs to it.

One index for each combination of file content, mapping and model version: catalogues never mix, and a vector of one
model never meets an index of another. What was loaded completely is noted beside the index, and so is the model of
an index that has changed it since.
"""

import functools
import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from deploy.local import files
from deploy.local.errors import LocalError
from deploy.local.queries import DemoSearch
from deploy.local.spec import DEFAULT_BUNDLE, DEFAULT_FOLDER, ROOT, MeshSpec
from shared.catalogue import write_jsonl

BUNDLED = ROOT / "build" / "catalogue" / "bundled.jsonl"
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A file of items and how its columns are read. `bundled` marks the project's own."""

    path: Path
    mapping: str = ""
    bundled: bool = False

    @property
    def name(self) -> str:
        """For people and for folder names."""
        return re.sub(r"[^a-z0-9]+", "-", self.path.name.lower().partition(".")[0]).strip("-") or "catalogue"

    def index(self, bundle: Path, folder: Path) -> Path:
        """The store's file for this catalogue encoded by `bundle`, below `folder`."""
        digest = hashlib.sha256(f"{_bundle_version(bundle)}\n{self.mapping}\n{self.content}".encode())
        return folder / "indexes" / f"{self.name}-{digest.hexdigest()[:_DIGITS]}" / "milvus.db"

    @property
    def content(self) -> str:
        """Fingerprint of what is in the file."""
        stat = self.path.stat()
        return _fingerprint(self.path, stat.st_size, stat.st_mtime_ns)


def choose(path: str | None, mapping: str | None) -> Catalogue:
    """The caller's catalogue, or the bundled one, which is written if it is not there yet."""
    if path is None:
        if mapping:
            raise LocalError("a mapping says how the columns of a catalogue are read: give the catalogue too")
        return Catalogue(_write_bundled(), bundled=True)
    given = Path(path).expanduser()
    if not given.is_file():
        raise LocalError(f"there is no catalogue file {given}")
    return Catalogue(given.resolve(), mapping or "")


def spec_for(catalogue: Catalogue, folder: Path = DEFAULT_FOLDER, port_base: int | None = None) -> MeshSpec:
    """The usual mesh over the index of `catalogue`, with everything it writes below `folder`."""
    usual = MeshSpec.default(index=folder, folder=folder, port_base=port_base)
    index = catalogue.index(usual.bundle, folder)
    return replace(usual, index=index, bundle=bundle_of(index))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A catalogue that was loaded to its end, and the searches that suit it."""

    items: int
    """Items that the index held afterwards."""
    searches: list[DemoSearch] = field(default_factory=list)

    @classmethod
    def of(cls, index: Path) -> "Loaded | None":
        """What was noted beside `index`; `None` when nothing readable was."""
        try:
            told = json.loads(_note(index).read_text())
            return cls(told["items"], [DemoSearch(**search) for search in told["searches"]])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def save(self, index: Path) -> None:
        """Notes it beside `index`."""
        files.write(_note(index), json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


@functools.lru_cache(maxsize=8)
def _fingerprint(path: Path, _size: int, _mtime_ns: int) -> str:
    """Read once, unless the file has changed meanwhile."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundle_of(index: Path) -> Path:
    """The model that `index` was last re-indexed with; the usual one where it never was."""
    try:
        return Path(_bundle_note(index).read_text().strip())
    except FileNotFoundError:
        return DEFAULT_BUNDLE


def note_bundle(index: Path, bundle: Path) -> None:
    """Notes beside `index` that its vectors are of `bundle` now, so that a mesh over it starts with that."""
    draft = _bundle_note(index).with_suffix(".tmp")
    draft.write_text(f"{bundle}\n")
    draft.replace(_bundle_note(index))


def _bundle_note(index: Path) -> Path:
    return index.parent / "bundle.txt"


def _note(index: Path) -> Path:
    return index.parent / "loaded.json"


def _write_bundled() -> Path:
    # Generated anew each time: half a second, and never out of step with the generator.
    from shared.catalogue.generator import generate

    BUNDLED.parent.mkdir(parents=True, exist_ok=True)
    draft = BUNDLED.with_suffix(".tmp")
    write_jsonl(generate(), draft)
    draft.replace(BUNDLED)
    return BUNDLED


def _bundle_version(bundle: Path) -> str:
    try:
        return str(json.loads((bundle / "bundle.json").read_text())["version"])
    except FileNotFoundError:
        raise LocalError(f"there is no model bundle in {bundle}; make it with `make models`") from None
    except (ValueError, KeyError):
        raise LocalError(f"{bundle / 'bundle.json'} cannot be read; make it anew with `make models`") from None
