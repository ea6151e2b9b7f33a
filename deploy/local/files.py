"""Small files that another process may read, or that a kill may interrupt: whole, or not there."""

import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Replaces `path`; a reader sees the old content or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        draft.write_text(text)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
