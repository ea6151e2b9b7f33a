"""Hashing the files of a bundle."""

import hashlib
from pathlib import Path, PurePosixPath

from shared.bundles.manifest import FileEntry

MANIFEST_NAME = "bundle.json"
CARD_NAME = "README.md"
"""For people: another card makes no other model."""


def hash_file(path: Path) -> FileEntry:
    """Content hash and size (bytes) of one file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(sha256=digest, size=path.stat().st_size)


def hash_tree(root: Path) -> dict[str, FileEntry]:
    """Every file below `root` except the manifest and the card, by its relative path with `/`, sorted."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        relative: hash_file(path)
        for path in paths
        if (relative := path.relative_to(root).as_posix()) not in (MANIFEST_NAME, CARD_NAME)
    }


def leads_out(relative: str) -> bool:
    """Whether a path of a manifest means a place outside the bundle."""
    path = PurePosixPath(relative)
    return path.is_absolute() or ".." in path.parts
