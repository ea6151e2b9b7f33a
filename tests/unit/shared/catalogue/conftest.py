from pathlib import Path

from shared.catalogue import RowError, read_catalogue
from shared.items import Item


def lines(folder: Path, *content: str, name: str = "items.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(content) + "\n", "utf-8", errors="surrogateescape")
    return path


def split(path: Path, mapping: str | None = None) -> tuple[list[Item], list[RowError]]:
    rows = list(read_catalogue(path, mapping))
    return [r for r in rows if isinstance(r, Item)], [r for r in rows if isinstance(r, RowError)]
