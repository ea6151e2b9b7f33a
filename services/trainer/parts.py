"""What a job has computed, kept in a folder until the job has ended well, so that one that was stopped goes on.

    parts = Parts(out / FOLDER)
    vectors = parts.rows([encoder.digest], texts, encoder.items)     # what is kept is read, the rest is computed
    …
    parts.remove()

A part's name is a digest of all that its numbers depend on, so other data or another model never meet it; the machine,
the versions of packages and the code are none of that. It is written whole or not at all. One that is damaged is
computed again.

Bit for bit the result is that of a run which was not stopped: what is in a part does not depend on where that was.
"""

import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.trainer.progress import bar

log = logging.getLogger(__name__)

FOLDER = "parts"
"""Of a job's folder."""
SUFFIX = ".part"
ROWS = 1_024
"""MiniLM takes half a minute of a core: little is lost, and batches can be of similar length. Too few for their own bar
(`progress`), for all of them together have one."""
_CHECKSUM_BYTES = hashlib.sha256().digest_size

Input = TypeVar("Input")
Array = NDArray[Any]


def digest(*values: Any) -> str:
    """64 hex digits over JSON values: same digest, same values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Parts:
    """The parts in one folder, which is made when there is something to keep.

    They take what the results take: 1.5 GB for a million vectors of 384 components.
    """

    def __init__(self, folder: Path, writes: bool = True) -> None:
        """`writes` False: what is there is read, but nothing is added; of several processes one is enough."""
        self._folder = folder
        self._writes = writes

    def rows(
        self, of: Sequence[Any], inputs: Sequence[Input], compute: Callable[[Sequence[Input]], NDArray[Any]]
    ) -> Array:
        """(inputs, …), a row an input, by `compute`, which is given at most `ROWS` at a time.

        `of` and `inputs` are JSON values; `of` is what the rows depend on besides.
        """
        pieces = [inputs[at : at + ROWS] for at in range(0, max(1, len(inputs)), ROWS)]
        files = [self._file(of, piece) for piece in pieces]
        found = {file: rows for file in files if (rows := _read(file)) is not None}
        done = sum(len(piece) for file, piece in zip(files, pieces, strict=True) if file in found)
        if done:
            log.info("%s of %s rows were done before", f"{done:,}", f"{len(inputs):,}")
        with bar(len(inputs), done) as told:
            for file, piece in zip(files, pieces, strict=True):
                if file not in found:
                    found[file] = self._keep(file, compute(piece))
                    told.update(len(piece))
        return np.concatenate([found[file] for file in files])

    def whole(self, of: Sequence[Any], compute: Callable[[], Array]) -> Array:
        """What `compute` gives, in one part; `of` are the JSON values that it depends on."""
        file = self._file(of)
        found = _read(file)
        return self._keep(file, compute()) if found is None else found

    def remove(self) -> None:
        """All of them: the job has ended well."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, *of: Any) -> Path:
        return self._folder / f"{digest(*of)}{SUFFIX}"

    def _keep(self, file: Path, array: Array) -> Array:
        if not self._writes:
            return array
        body = io.BytesIO()
        np.save(body, array, allow_pickle=False)
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".draft-{os.getpid()}")
        draft.write_bytes(_checksum(body.getvalue()) + body.getvalue())
        draft.replace(file)
        return array


def _read(file: Path) -> Array | None:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    body = content[_CHECKSUM_BYTES:]
    if _checksum(body) != content[:_CHECKSUM_BYTES]:
        log.warning("%s is damaged: it is computed again", file)
        return None
    array: Array = np.load(io.BytesIO(body), allow_pickle=False)
    return array


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
