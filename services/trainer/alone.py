"""A folder that one run at a time has."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.trainer.errors import JobError


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Makes `folder`, and keeps other runs from it. Raises `JobError`, which says `name`, where another has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobError(f"{name} is another run's at the moment: wait for it") from None
        yield
